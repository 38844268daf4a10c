"""Lark for strings, numbers and constants."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from dgemma_core.api.formats import FORMATS
from dgemma_core.api.patterns import whole_regex
from dgemma_core.errors import GrammarError
from dgemma_core.structured.hints import sample
from dgemma_core.structured.lark import Expr, LarkWriter, joined, quoted
from dgemma_core.structured.tool_schema.json_values import may_fit, type_of
from dgemma_core.structured.tool_schema.keywords import SPEAKS_OF, Flat
from dgemma_core.structured.tool_schema.lark_checks import matches_text, problem_of
from dgemma_core.structured.tool_schema.rules import ValueRules
from dgemma_core.structured.tool_schema.spelling import dictsorted, key_problem, text_problem

_QUOTE = '<|"|>'


class ScalarWriter:
    """Writes Lark for flat schemas of values that are not arrays or objects.

    Args:
        writer: of the whole grammar.
        rules: of the tool.
        error: makes the error to raise, from a path and a problem.

    Attributes:
        contradictions: places where no string fits, each with the reason.
    """

    def __init__(self, writer: LarkWriter, rules: ValueRules, error: Callable[[str, str], GrammarError]) -> None:
        self._writer = writer
        self._rules = rules
        self._error = error
        self.contradictions: list[tuple[str, str]] = []

    def constants(self, flat: Flat, path: str) -> Expr | None:
        """Lark for the values under ``enum`` that fit the other keywords; None if none does.

        Raises:
            GrammarError: a value that cannot be checked or written.
        """
        try:
            values = [value for value in flat["enum"] if may_fit(value, flat)]
        except ValueError as error:
            raise self._error(path, f"'pattern' in {flat['patterns']!r} cannot be enforced: {error}") from error
        for value in values:
            kind = type_of(value)
            unchecked = [key for key in SPEAKS_OF.get(kind, ()) if key in flat]
            if kind in ("array", "object") and unchecked:
                raise self._error(path, f"'enum' with an {kind} next to {unchecked[0]!r} cannot be enforced")
        texts = [value for value in values if isinstance(value, str)]
        for text in texts:
            self._check(text_problem(text), path)
        # Terminals, because a rule may have 2,000 alternatives at most.
        named = [quoted(text) for text in dict.fromkeys(texts) if text]
        options = [Expr(f"{_QUOTE} {self._writer.terminal(' | '.join(named))} {_QUOTE}")] if named else []
        options += [Expr(f"{_QUOTE} {_QUOTE}")] if "" in texts else []
        composite = [value for value in values if isinstance(value, list | Mapping)]
        plain = [value for value in values if not isinstance(value, str | list | Mapping)]
        if plain:
            options.append(Expr(self._writer.terminal(" | ".join(self._constant(value, path) for value in plain))))
        options += [Expr(self._constant(value, path)) for value in composite]
        return self._rules.either(options)

    def number(self, kind: str, flat: Flat, path: str) -> Expr | None:
        """Lark for an ``"integer"`` or ``"number"``; None if no number fits the bounds.

        Raises:
            GrammarError: bounds that llguidance cannot enforce.
        """
        limits = {key: flat[key] for key in SPEAKS_OF["number"] if key in flat}
        if not limits:
            return Expr(kind.upper())
        schema = json.dumps({"type": kind, **limits, "x-guidance": {"whitespace_flexible": False}})
        problem = problem_of(f"start: %json {schema}")
        if "nsatisfiable" in problem or "range" in problem:
            return None
        if problem:
            raise self._error(path, f"{', '.join(map(repr, limits))} cannot be enforced: {problem}")
        return Expr(self._writer.rule(f"%json {schema}"))

    def string(self, flat: Flat, path: str) -> Expr | None:
        """Lark for a string; None if no string fits.

        Raises:
            GrammarError: a pattern that cannot be enforced.
        """
        low, high = flat.get("minLength", 0), flat.get("maxLength")
        longest = [FORMATS[form].longest for form in flat.get("formats", [])]
        high = min((n for n in (high, *longest) if n is not None), default=None)
        if high is not None and low > high:
            return self._nothing(flat, path)
        patterns, formats = flat.get("patterns", []), flat.get("formats", [])
        parts = [self._pattern(pattern, path) for pattern in patterns]
        parts += [whole_regex(FORMATS[form].pattern, search=False) for form in formats]
        hints = [*map(sample, patterns), *(FORMATS[form].sample for form in formats)]
        self._writer.hints.update(hint for hint in hints if hint)
        if low or high is not None:
            parts.append(f"(?s:.{{{low},{'' if high is None else high}}})")
        if not parts:
            return Expr(f"{_QUOTE} TEXT {_QUOTE}")
        body = " & ".join(f"/{part}/" for part in parts)
        some = matches_text(body)
        if some is None:
            return self._nothing(flat, path)
        return Expr(f"{_QUOTE} {self._writer.terminal(body)} {_QUOTE}" if some else f"{_QUOTE} {_QUOTE}")

    def _nothing(self, flat: Flat, path: str) -> None:
        said = [key for key in SPEAKS_OF["string"] if key in flat]
        values = ", ".join(f"{key.rstrip('s')!r} {flat[key]!r}" for key in said)
        self.contradictions.append((path, f"no string fits {values} at once"))

    def _constant(self, value: Any, path: str) -> str:
        if isinstance(value, str):
            self._check(text_problem(value), path)
            return f"{_QUOTE} {quoted(value)} {_QUOTE}" if value else f"{_QUOTE} {_QUOTE}"
        if isinstance(value, list):
            return f'"[" {joined([self._constant(item, path) for item in value])} "]"'
        if isinstance(value, Mapping):
            pairs = dictsorted(value)
            for key, _ in pairs:
                self._check(key_problem(key), path)
            entries = [f"{quoted(f'{key}:')} {self._constant(item, path)}" for key, item in pairs]
            return f'"{{" {joined(entries)} "}}"'
        try:
            return quoted(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise self._error(path, f"'enum' or 'const' holds {value!r}, which JSON has no form for") from error

    def _pattern(self, pattern: str, path: str) -> str:
        try:
            return whole_regex(pattern)
        except ValueError as error:
            raise self._error(path, f"'pattern' {pattern!r} cannot be enforced: {error}") from error

    def _check(self, problem: str, path: str) -> None:
        if problem:
            raise self._error(path, problem)
