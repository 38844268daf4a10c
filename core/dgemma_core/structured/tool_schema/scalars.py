"""Lark for strings, numbers and constants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dgemma_core.api.formats import FORMATS
from dgemma_core.api.json_schemas.wide_bounds import within_reach
from dgemma_core.api.patterns import whole_regex
from dgemma_core.structured.hints import sample
from dgemma_core.structured.lark import Expr, LarkWriter, joined, quoted
from dgemma_core.structured.tool_schema.json_values import may_fit, type_of
from dgemma_core.structured.tool_schema.keywords import SPEAKS_OF, Flat
from dgemma_core.structured.tool_schema.lark_checks import matches_text, problem_of
from dgemma_core.structured.tool_schema.problems import Problems
from dgemma_core.structured.tool_schema.rules import ValueRules
from dgemma_core.structured.tool_schema.spelling import BARE_KEY, dictsorted, key_text, key_with_colon

_QUOTE = '<|"|>'


class ScalarWriter:
    """Writes Lark for flat schemas of values that are not arrays or objects.

    Args:
        writer: of the whole grammar.
        rules: of the tool.
        problems: of the tool.

    Attributes:
        contradictions: places where no string fits, each with the reason.
    """

    def __init__(self, writer: LarkWriter, rules: ValueRules, problems: Problems) -> None:
        self._writer = writer
        self._rules = rules
        self._problems = problems
        self.contradictions: list[tuple[str, str]] = []

    def constants(self, flat: Flat, path: str) -> Expr | None:
        """Lark for the values under ``enum`` that fit the other keywords; None if none does.

        Raises:
            GrammarError: a value that cannot be checked or written.
        """
        try:
            values = [value for value in flat["enum"] if may_fit(value, flat)]
        except ValueError as error:
            self._problems.widen(path, f"'pattern' in {flat['patterns']!r} cannot be enforced: {error}")
            values = [value for value in flat["enum"] if may_fit(value, {**flat, "patterns": []})]
        for value in values:
            kind = type_of(value)
            unchecked = [key for key in SPEAKS_OF.get(kind, ()) if key in flat]
            if kind in ("array", "object") and unchecked:
                self._problems.widen(path, f"'enum' with an {kind} next to {unchecked[0]!r} cannot be enforced")
        values = [value for value in values if self._can_be_written(value, path)]
        texts = [value for value in values if isinstance(value, str)]
        # Terminals, because a rule may have 2,000 alternatives at most.
        named = [quoted(text) for text in dict.fromkeys(texts) if text]
        options = [Expr(f"{_QUOTE} {self._writer.terminal(' | '.join(named))} {_QUOTE}")] if named else []
        options += [Expr(f"{_QUOTE} {_QUOTE}")] if "" in texts else []
        composite = [value for value in values if isinstance(value, list | Mapping)]
        plain = [value for value in values if not isinstance(value, str | list | Mapping)]
        if plain:
            options.append(Expr(self._writer.terminal(" | ".join(self._constant(value) for value in plain))))
        options += [Expr(self._constant(value)) for value in composite]
        return self._rules.either(options)

    def number(self, kind: str, flat: Flat, path: str) -> Expr | None:
        """Lark for an ``"integer"`` or ``"number"``; None if no number fits the bounds.

        Raises:
            GrammarError: bounds that llguidance cannot enforce.
        """
        limits = {key: flat[key] for key in SPEAKS_OF["number"] if key in flat}
        if not limits:
            return Expr(kind.upper())
        schema = json.dumps(within_reach({"type": kind, **limits}) | {"x-guidance": {"whitespace_flexible": False}})
        problem = problem_of(f"start: %json {schema}")
        if "nsatisfiable" in problem or "range" in problem:
            return None
        if problem:
            self._problems.widen(path, f"{', '.join(map(repr, limits))} cannot be enforced: {problem}")
            return Expr(kind.upper())
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
            self._note_contradiction(flat, path)
            return None
        body = self._body(flat, low, high, path)
        if not body:
            return Expr(f"{_QUOTE} TEXT {_QUOTE}")
        some = matches_text(body)
        if some is None:
            self._note_contradiction(flat, path)
            return None
        return Expr(f"{_QUOTE} {self._writer.terminal(body)} {_QUOTE}" if some else f"{_QUOTE} {_QUOTE}")

    def key(self, flats: Sequence[Flat], path: str, others: Sequence[str] = ()) -> Expr | None:
        """Lark for the keys of an object, bare where they can be; None if none fits.

        Args:
            flats: schemas of strings; a key fits one of them.
            path: the place of the object.
            others: patterns that a key must not have.
        """
        # Only ASCII, because dialects may differ in whether another key has a pattern.
        apart = "".join(f" & ~/{whole_regex(other)}/" for other in others) + (" & /[ -~]*/" if others else "")
        options: list[Expr | None] = []
        for flat in flats:
            if "enum" in flat:
                options += [Expr(key_text(name)) for name in flat["enum"] if isinstance(name, str)]
                continue
            body = self._body(flat, flat.get("minLength", 0), flat.get("maxLength"), path) + apart
            if not body:
                options.append(Expr("KEY"))
            elif matches_text(f"{body} & {BARE_KEY}"):
                options.append(Expr(self._writer.terminal(f"{body} & {BARE_KEY}")))
            elif matches_text(body):
                options.append(Expr(f"{_QUOTE} {self._writer.terminal(body)} {_QUOTE}"))
        return self._rules.either(options)

    def _body(self, flat: Flat, low: int, high: int | None, path: str) -> str:
        """A terminal's body for a string; empty for any string."""
        patterns, formats = flat.get("patterns", []), flat.get("formats", [])
        parts = [regex for pattern in patterns if (regex := self._pattern(pattern, path))]
        parts += [whole_regex(FORMATS[form].pattern, search=False) for form in formats]
        hints = [*map(sample, patterns), *(FORMATS[form].sample for form in formats)]
        self._writer.hints.update(hint for hint in hints if hint)
        if low or high is not None:
            parts.append(f"(?s:.{{{low},{'' if high is None else high}}})")
        return " & ".join(f"/{part}/" for part in parts)

    def _note_contradiction(self, flat: Flat, path: str) -> None:
        said = [key for key in SPEAKS_OF["string"] if key in flat]
        values = ", ".join(f"{key.rstrip('s')!r} {flat[key]!r}" for key in said)
        self.contradictions.append((path, f"no string fits {values} at once"))

    def _can_be_written(self, value: Any, path: str) -> bool:
        """Whether a call can hold a constant; it is left out if it cannot."""
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            self._problems.widen(path, f"'enum' or 'const' holds {value!r}, which JSON has no form for")
            return False
        return True

    def _constant(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{_QUOTE} {quoted(value)} {_QUOTE}" if value else f"{_QUOTE} {_QUOTE}"
        if isinstance(value, list):
            return f'"[" {joined([self._constant(item) for item in value])} "]"'
        if isinstance(value, Mapping):
            entries = [f"{key_with_colon(key)} {self._constant(item)}" for key, item in dictsorted(value)]
            return f'"{{" {joined(entries)} "}}"'
        return quoted(json.dumps(value))

    def _pattern(self, pattern: str, path: str) -> str:
        try:
            return whole_regex(pattern)
        except ValueError as error:
            self._problems.widen(path, f"'pattern' {pattern!r} cannot be enforced: {error}")
            return ""
