"""Grammars for an assistant's turn with tool calls in Gemma 4's wire format.

A call is ``<|tool_call>call:NAME{key:value}<tool_call|>``: bare keys in the order of jinja's ``dictsort``, strings
between two ``<|"|>`` with nothing escaped, everything else as in JSON, no blanks. The arguments follow the tool's JSON
Schema. What is allowed is a subset of what the schema allows: optional keys may be missing, undeclared ones are not
written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dgemma_core.api.grammar import COMPACT, Grammar
from dgemma_core.structured.flat_schema import SPEAKS_OF, TYPES, SchemaParts, may_fit, type_of
from dgemma_core.structured.hints import FORMAT_SAMPLES, sample
from dgemma_core.structured.lark import Expr, LarkWriter, joined, list_of, matches_text, problem_of, quoted, repeated
from dgemma_core.structured.patterns import FORMATS, whole_regex

CHOICES = ("auto", "none", "any", "required")

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# A key is bare: these would end it, or be lost where a reader strips blanks.
_KEY_ENDS = re.compile(r"[:,{}\[\]]|^\s|\s$|^$")
# Text spelled like a control token: llguidance would force the token itself where such a text must come.
_CONTROL = re.compile(r"<\|[^<>|\s]*\|?>|<[^<>|\s]+\|>|<(?:pad|eos|bos|unk|mask)>")
_QUOTE = '<|"|>'

_SCALAR = f'{_QUOTE} TEXT {_QUOTE} | NUMBER | "true" | "false" | "null"'
_COMMON = {
    "thought": "<|channel> TEXT <channel|>",
    "scalar": _SCALAR,
    "any": f'{_SCALAR} | "[" (any ("," any)*)? "]" | "{{" (KEY ":" any ("," KEY ":" any)*)? "}}"',
    "TEXT": "/(?s:.*)/",
    "INTEGER": "/-?(?:0|[1-9][0-9]*)/",
    # Two digits of exponent: more would read as infinity.
    "NUMBER": "/-?(?:0|[1-9][0-9]*)(?:[.][0-9]+)?(?:[eE][+-]?[0-9]{1,2})?/",
    "KEY": "/[A-Za-z_][A-Za-z0-9_]*/",
}


def tool_grammar(
    tools: Sequence[Mapping[str, Any]], choice: str = "auto", parallel: bool = True, answer: Grammar | None = None
) -> Grammar:
    """The grammar of an assistant's turn that may, must or must not call tools.

    Args:
        tools: OpenAI function dicts, or what stands under their ``function``.
        choice: ``"auto"``, ``"none"``, ``"any"`` or ``"required"`` (a call of some tool and no text), or a tool's name
            (a call of this tool and no text). Reasoning may always come first.
        parallel: whether more than one call may follow each other.
        answer: JSON that an answer without calls must be; only with ``"auto"``, and with no text beside calls.

    Raises:
        ValueError: a tool without a proper name, two of one name, an unknown ``choice``, or a call asked for and no
            tools.
        GrammarError: parameters that are no schema, that nothing fits, or with a keyword that cannot be enforced; tool,
            place and keyword are named.
    """
    functions = _functions(tools)
    if choice not in CHOICES and choice not in functions:
        known = f"or one of the tools {', '.join(functions)}" if functions else "there are no tools"
        raise ValueError(f"choice={choice!r}: must be one of {', '.join(CHOICES)}; {known}")
    if choice in ("any", "required") and not functions:
        raise ValueError(f"choice={choice!r}: needs at least one tool, and there are none")
    if choice not in CHOICES:
        functions = {choice: functions[choice]}
    writer = LarkWriter(_COMMON)
    calls = ""
    if choice != "none" and functions:
        arguments = [f"{quoted(name)} {_Tool(name, schema, writer).arguments()}" for name, schema in functions.items()]
        writer.rules["call"] = f'<|tool_call> "call:" ({" | ".join(arguments)}) <tool_call|>'
        calls = "call"
    if answer is not None:
        if answer.kind != "json_schema" or choice != "auto":
            raise ValueError(
                f"an answer of a {answer.kind} grammar does not go together with tools, choice={choice!r} or thoughts: "
                "only JSON does, with choice='auto'"
            )
        writer.rules["answer"] = f"%json {json.dumps(json.loads(answer.source) | {'x-guidance': COMPACT})}"
        turn = f"thought? ({calls}{'+' if parallel else ''} | answer)" if calls else "thought? answer"
    elif choice in ("auto", "none"):
        turn = f"thought? TEXT {calls and calls + ('*' if parallel else '?')}"
    else:
        turn = f"thought? {calls}{'+' if parallel else ''}"
    return Grammar.lark(writer.text(turn.strip()))


def _functions(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters by tool name."""
    found: dict[str, Any] = {}
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else tool
        if not isinstance(function, Mapping):
            raise ValueError(f"tools hold {tool!r}: a tool is an OpenAI function dict")
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"name={name!r}: a tool's name consists of letters, digits, '_', '.' and '-'")
        if name in found:
            raise ValueError(f"name={name!r}: two tools have this name; the names are {', '.join(found)}")
        found[name] = function.get("parameters")
    return found


class _Tool:
    """Writes down one tool's parameters, which :class:`SchemaParts` takes apart."""

    def __init__(self, name: str, schema: Any, writer: LarkWriter) -> None:
        self._root = {} if schema is None else schema
        self._parts = SchemaParts(name, self._root)
        self._writer = writer
        self._rules: dict[str, str] = {}  # by what $ref says
        self._open: dict[str, str] = {}  # Schemas being written down, and their rules if they lead back to themselves.
        self._alternatives: dict[str, list[Expr]] = {}
        self._places: dict[str, str] = {}  # of rules in the schema

    def arguments(self) -> str:
        """Lark for the arguments, braces included."""
        try:
            made = self._arguments()
        except RecursionError as error:
            problem = "the schema is nested too deep, or leads back to itself through 'allOf'"
            raise self._parts.error("#", problem) from error
        if made is None:
            raise self._parts.error("#", "no arguments can fit this schema")
        self._check_ends()
        return made.text

    def _arguments(self) -> Expr | None:
        flats = self._parts.combine([{"type": ["object"]}], self._parts.expand(self._root, "#"), "#")
        for flat in flats:
            if not flat.get("properties") and not flat.get("required"):
                flat.setdefault("additionalProperties", False)  # A tool without parameters takes none.
        return self._either([self._flat(flat, "#") for flat in flats])

    def _check_ends(self) -> None:
        """Refuse schemas that require themselves for ever."""
        ending: set[str] = set()
        while True:
            more = {
                name
                for name, options in self._alternatives.items()
                if name not in ending and any(option.needs <= ending for option in options)
            }
            if not more:
                break
            ending |= more
        for name, place in self._places.items():
            if name not in ending:
                raise self._parts.error(place, "nothing finite can fit this schema")

    def _value(self, schema: Any, path: str) -> Expr | None:
        if not isinstance(schema, Mapping) or not schema.keys() & {"allOf", "anyOf", "oneOf", "$ref"}:
            return self._either([self._flat(flat, path) for flat in self._parts.expand(schema, path)])
        # What is merged into a schema may lead back to it: then it becomes a rule of its own.
        key = json.dumps(schema, sort_keys=True, default=str)
        if key in self._open:
            name = self._open[key] = self._open[key] or self._writer.rule_name()
            return Expr(name, frozenset({name}))
        self._open[key] = ""
        made = self._either([self._flat(flat, path) for flat in self._parts.expand(schema, path)])
        name = self._open.pop(key)
        return self._define(name, made, path) if name else made

    def _define(self, name: str, made: Expr | None, path: str) -> Expr:
        self._places[name] = path
        self._alternatives[name] = [] if made is None else [made]
        self._writer.rules[name] = '""' if made is None else made.text
        return Expr(name, frozenset({name}))

    def _either(self, options: Iterable[Expr | None]) -> Expr | None:
        """An alternation, or None if there is nothing to choose."""
        fitting = list(dict.fromkeys(option for option in options if option is not None))
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        text = " | ".join(option.text for option in fitting)
        if any(not option.needs for option in fitting):
            return Expr(f"({text})")
        name = self._writer.rule(text)
        self._alternatives[name] = fitting
        return Expr(name, frozenset({name}))

    def _flat(self, flat: dict[str, Any], path: str) -> Expr | None:
        if "$ref" in flat:
            return self._reference(flat["$ref"], path)
        if "enum" in flat:
            return self._constants(flat, path)
        types = flat.get("type") or [t for t in TYPES if any(key in flat for key in SPEAKS_OF.get(t, ()))]
        if not types:
            return Expr("any")
        return self._either(self._typed(kind, flat, path) for kind in types)

    def _typed(self, kind: str, flat: dict[str, Any], path: str) -> Expr | None:
        if kind == "null":
            return Expr('"null"')
        if kind == "boolean":
            return Expr('("true" | "false")')
        if kind in ("integer", "number"):
            return self._number(kind, flat, path)
        if kind == "string":
            return self._string(flat, path)
        return self._array(flat, path) if kind == "array" else self._object(flat, path)

    def _reference(self, reference: Any, path: str) -> Expr:
        target = self._parts.target(reference, path)
        if reference not in self._rules:
            name = self._rules[reference] = self._writer.rule_name()
            self._define(name, self._value(target, reference), reference)
        name = self._rules[reference]
        return Expr(name, frozenset({name}))

    def _constants(self, flat: dict[str, Any], path: str) -> Expr | None:
        values = [value for value in flat["enum"] if may_fit(value, flat)]
        for value in values:
            kind = type_of(value)
            unchecked = [key for key in SPEAKS_OF.get(kind, ()) if key in flat]
            if kind in ("array", "object") and unchecked:
                raise self._parts.error(path, f"'enum' with an {kind} next to {unchecked[0]!r} cannot be enforced")
        texts = [value for value in values if isinstance(value, str)]
        for text in texts:
            self._check_text(text, path)
        options = [Expr(self._constant(value, path)) for value in values if value == "" or value not in texts]
        named = [quoted(text) for text in dict.fromkeys(texts) if text]
        if named:
            options.insert(0, Expr(f"{_QUOTE} {self._writer.terminal(' | '.join(named))} {_QUOTE}"))
        return self._either(options)

    def _constant(self, value: Any, path: str) -> str:
        if isinstance(value, str):
            self._check_text(value, path)
            return f"{_QUOTE} {quoted(value)} {_QUOTE}" if value else f"{_QUOTE} {_QUOTE}"
        if isinstance(value, list):
            return f'"[" {joined([self._constant(item, path) for item in value])} "]"'
        if isinstance(value, Mapping):
            pairs = _dictsorted(value)
            for key, _ in pairs:
                self._check_key(key, path)
            entries = [f"{quoted(f'{key}:')} {self._constant(item, path)}" for key, item in pairs]
            return f'"{{" {joined(entries)} "}}"'
        try:
            return quoted(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise self._parts.error(path, f"'enum' or 'const' holds {value!r}, which JSON has no form for") from error

    def _number(self, kind: str, flat: dict[str, Any], path: str) -> Expr | None:
        limits = {key: flat[key] for key in SPEAKS_OF["number"] if key in flat}
        if not limits:
            return Expr(kind.upper())
        schema = json.dumps({"type": kind, **limits, "x-guidance": {"whitespace_flexible": False}})
        problem = problem_of(f"start: %json {schema}")
        if "nsatisfiable" in problem or "range" in problem:
            return None
        if problem:
            raise self._parts.error(path, f"{', '.join(map(repr, limits))} cannot be enforced: {problem}")
        return Expr(self._writer.rule(f"%json {schema}"))

    def _string(self, flat: dict[str, Any], path: str) -> Expr | None:
        low, high = flat.get("minLength", 0), flat.get("maxLength")
        if high is not None and low > high:
            return None
        parts = [self._pattern(pattern, path) for pattern in flat.get("patterns", [])]
        parts += [FORMATS[form] for form in flat.get("formats", [])]
        hints = [*map(sample, flat.get("patterns", [])), *(FORMAT_SAMPLES[form] for form in flat.get("formats", []))]
        self._writer.hints.update(hint for hint in hints if hint)
        if low or high is not None:
            parts.append(f"(?s:.{{{low},{'' if high is None else high}}})")
        if not parts:
            return Expr(f"{_QUOTE} TEXT {_QUOTE}")
        body = " & ".join(f"/{part}/" for part in parts)
        some = matches_text(body)
        if some is None:
            return None
        return Expr(f"{_QUOTE} {self._writer.terminal(body)} {_QUOTE}" if some else f"{_QUOTE} {_QUOTE}")

    def _pattern(self, pattern: str, path: str) -> str:
        try:
            return whole_regex(pattern)
        except ValueError as error:
            raise self._parts.error(path, f"'pattern' {pattern!r} cannot be enforced: {error}") from error

    def _array(self, flat: dict[str, Any], path: str) -> Expr | None:
        low, high = flat.get("minItems", 0), flat.get("maxItems")
        heads: list[Expr] = []
        for index, schema in enumerate(flat.get("prefixItems", [])[:high]):
            head = self._value(schema, f"{path}/prefixItems/{index}")
            if head is None:
                high = index
                break
            heads.append(head)
        rest = None
        if high is None or high > len(heads):
            rest = self._value(flat.get("items", True), f"{path}/items")
            if rest is None:
                high = len(heads)
        if high is not None and low > high:
            return None
        return list_of(heads, rest, low, high)

    def _object(self, flat: dict[str, Any], path: str) -> Expr | None:
        declared = dict(flat.get("properties", {}))
        closed = flat.get("unevaluatedProperties", True) is False
        others = flat.get("additionalProperties", not (closed or flat.get("properties") == {}))
        required = flat.get("required", [])
        if not declared and not required:
            return self._map(others, flat, path)
        for name in required:
            declared.setdefault(name, False if closed else flat.get("additionalProperties", True))
        entries: list[tuple[Expr, bool]] = []
        for name, schema in _dictsorted(declared):
            value = self._value(schema, f"{path}/properties/{name}")
            if value is not None:
                self._check_key(name, path)
                entries.append((Expr(f"{quoted(name + ':')} {value.text}", value.needs), name in required))
            elif name in required:
                return None
        return self._record(entries, flat, path)

    def _check_text(self, text: str, path: str) -> None:
        if _CONTROL.search(text):
            raise self._parts.error(path, f"{text!r} is spelled like a control token and cannot be asked for")

    def _check_key(self, key: str, path: str) -> None:
        self._check_text(key, path)
        if _KEY_ENDS.search(key):
            raise self._parts.error(
                path, f"the key {key!r} cannot be written bare: it is empty or holds a blank end or :,{{}}[]"
            )

    def _record(self, entries: list[tuple[Expr, bool]], flat: dict[str, Any], path: str) -> Expr | None:
        """An object of known keys; sizes beyond "not empty" would have to be counted."""
        low, high = flat.get("minProperties", 0), flat.get("maxProperties")
        needed = sum(must for _, must in entries)
        if low > len(entries) or (high is not None and high < needed):
            return None
        if low == len(entries):
            entries, needed = [(entry, True) for entry, _ in entries], len(entries)
        elif high == needed:
            entries = [(entry, must) for entry, must in entries if must]
        if low > max(needed, 1):
            raise self._parts.error(path, f"'minProperties' of {low} cannot be enforced")
        if high is not None and high < len(entries):
            raise self._parts.error(path, f"'maxProperties' of {high} cannot be enforced")
        if not entries:
            return Expr('"{" "}"')
        if not needed:
            inner = self._any_of(entries)
            return Expr(f'"{{" {inner} "}}"' if low else f'"{{" {inner}? "}}"')
        first = next(index for index, (_, must) in enumerate(entries) if must)
        parts = [f'({entry.text} ",")?' for entry, _ in entries[:first]]
        parts.append(entries[first][0].text)
        parts += [f'"," {entry.text}' if must else f'("," {entry.text})?' for entry, must in entries[first + 1 :]]
        needs = frozenset(need for entry, must in entries if must for need in entry.needs)
        return Expr(f'"{{" {" ".join(parts)} "}}"', needs)

    def _any_of(self, entries: list[tuple[Expr, bool]]) -> str:
        """One or more of the entries in their order: one rule per entry for what may follow it."""
        tail, options = "", []
        for entry, _ in reversed(entries):
            options.append(f"{entry.text} {tail}".strip())
            tail = self._writer.rule(f'("," {entry.text})? {tail}'.strip())
        return f"({' | '.join(reversed(options))})"

    def _map(self, others: Any, flat: dict[str, Any], path: str) -> Expr | None:
        """An object of unknown keys."""
        low, high = flat.get("minProperties", 0), flat.get("maxProperties")
        value = Expr("scalar") if others is True else self._value(others, f"{path}/additionalProperties")
        if value is None or high == 0:
            return None if low else Expr('"{" "}"')
        if low > 1:  # A key written twice would count twice.
            raise self._parts.error(path, f"'minProperties' of {low} cannot be enforced")
        entry = f'KEY ":" {value.text}'
        more = repeated(f'("," {entry})', 0, None if high is None else high - 1)
        inner = f"{entry} {more}".strip()
        return Expr(f'"{{" {inner} "}}"', value.needs) if low else Expr(f'"{{" ({inner})? "}}"')


def _dictsorted(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The order of jinja's ``dictsort``."""
    return sorted(mapping.items(), key=lambda pair: pair[0].lower())
