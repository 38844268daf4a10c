"""Grammars for an assistant's turn with tool calls in Gemma 4's wire format.

A call is ``<|tool_call>call:NAME{key:value}<tool_call|>``: bare keys in the order of jinja's ``dictsort``, strings
between two ``<|"|>`` with nothing escaped, everything else as in JSON, no blanks. The arguments follow the tool's JSON
Schema. What is allowed is a subset of what the schema allows: optional keys may be missing, undeclared ones are not
written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from typing import Any

from dgemma_core.errors import GrammarError
from dgemma_core.structured.grammar import COMPACT, Grammar
from dgemma_core.structured.hints import FORMAT_SAMPLES, HINTS_LINE, sample
from dgemma_core.structured.patterns import FORMATS, whole_regex

CHOICES = ("auto", "none", "any", "required")

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# A key is bare: these would end it, or be lost where a reader strips blanks.
_KEY_ENDS = re.compile(r"[:,{}\[\]]|^\s|\s$|^$")
# Text spelled like a control token: llguidance would force the token itself where such a text must come.
_CONTROL = re.compile(r"<\|[^<>|\s]*\|?>|<[^<>|\s]+\|>|<(?:pad|eos|bos|unk|mask)>")
_MOST_ALTERNATIVES = 256
_MOST_EXPANDED = 20_000
_DEEPEST_COMPARISON = 3
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_QUOTE = '<|"|>'

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LOWER = frozenset({"minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"})
# Keywords by the type they speak about; without "type", their presence tells what is meant.
_SPEAKS_OF = {
    "string": ("minLength", "maxLength", "patterns", "formats"),
    "number": (*_BOUNDS, "multipleOf"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": (
        "properties",
        "required",
        "additionalProperties",
        "unevaluatedProperties",
        "minProperties",
        "maxProperties",
    ),
}
_KEPT = frozenset(
    {"type", "enum", "const", "pattern", "format", "additionalItems", *(k for ks in _SPEAKS_OF.values() for k in ks)}
)
# What restricts values and is not enforced, with the values under which it does not.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "not": (False,),
    "if": (True, False),
    "patternProperties": ({},),
    "propertyNames": ({}, True),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "uniqueItems": (False,),
    "contains": (),
    "unevaluatedItems": ({}, True),
    "$dynamicRef": (),
    "$recursiveRef": (),
}

_TERMINALS = {
    "TEXT": "/(?s:.*)/",
    "INTEGER": "/-?(?:0|[1-9][0-9]*)/",
    # Two digits of exponent: more would read as infinity.
    "NUMBER": "/-?(?:0|[1-9][0-9]*)(?:[.][0-9]+)?(?:[eE][+-]?[0-9]{1,2})?/",
    "KEY": "/[A-Za-z_][A-Za-z0-9_]*/",
}
_SCALAR = f'{_QUOTE} TEXT {_QUOTE} | NUMBER | "true" | "false" | "null"'
_RULES = {
    "thought": "<|channel> TEXT <channel|>",
    "scalar": _SCALAR,
    "any": f'{_SCALAR} | "[" (any ("," any)*)? "]" | "{{" (KEY ":" any ("," KEY ":" any)*)? "}}"',
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
    writer = _Writer()
    calls = ""
    if choice != "none" and functions:
        arguments = [f"{_quoted(name)} {_Tool(name, schema, writer).arguments()}" for name, schema in functions.items()]
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


@dataclass(frozen=True)
class _Expr:
    """Lark for a value, and the rules without which it cannot be completed."""

    text: str
    needs: frozenset[str] = frozenset()


class _Writer:
    """Collects the rules and terminals of a grammar; the same ones are written once."""

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}
        self.hints: set[str] = set()
        self._named: dict[str, str] = {}
        self._terminals: dict[str, str] = {}

    def rule_name(self) -> str:
        """A name of its own for a rule to come."""
        self.rules[name := f"r{len(self.rules)}"] = ""
        return name

    def rule(self, body: str) -> str:
        """The name of a rule with this body."""
        if body not in self._named:
            self._named[body] = self.rule_name()
            self.rules[self._named[body]] = body
        return self._named[body]

    def terminal(self, body: str) -> str:
        """The name of a terminal with this body."""
        return self._terminals.setdefault(body, f"T{len(self._terminals)}")

    def text(self, start: str) -> str:
        """The grammar. What it uses of the common rules and terminals is added."""
        rules = {"start": start, **self.rules}
        lines = [f"{name}: {body}" for name, body in rules.items()]
        lines += [f"{name}: {body}" for body, name in self._terminals.items()]
        for name, body in (*_RULES.items(), *_TERMINALS.items()):
            if any(re.search(rf"\b{name}\b", re.sub(r'"(?:\\.|[^"\\])*"', "", line)) for line in lines):
                lines.append(f"{name}: {body}")
        if self.hints:
            lines.insert(0, HINTS_LINE + json.dumps(sorted(self.hints, key=lambda h: (len(h), h))))
        return "\n".join(lines) + "\n"


class _Tool:
    """Compiles one tool's parameters.

    A schema is first taken apart into alternatives without ``anyOf`` and the like ("flat" schemas: ``type``, ``enum``,
    ``patterns`` and ``formats`` are lists there), then each is written down.
    """

    def __init__(self, name: str, schema: Any, writer: _Writer) -> None:
        self._name = name
        self._root = {} if schema is None else schema
        self._writer = writer
        self._rules: dict[str, str] = {}  # by what $ref says
        self._open: dict[str, str] = {}  # Schemas being written down, and their rules if they lead back to themselves.
        self._alternatives: dict[str, list[_Expr]] = {}
        self._places: dict[str, str] = {}  # of rules in the schema
        self._inlining: list[str] = []
        self._expanded = 0  # Schemas taken apart.
        self._compared = 0  # How deep a comparison of branches has gone.

    def arguments(self) -> str:
        """Lark for the arguments, braces included."""
        try:
            made = self._arguments()
        except RecursionError as error:
            raise self._error("#", "the schema is nested too deep, or leads back to itself through 'allOf'") from error
        if made is None:
            raise self._error("#", "no arguments can fit this schema")
        self._check_ends()
        return made.text

    def _arguments(self) -> _Expr | None:
        flats = self._combine([{"type": ["object"]}], self._expand(self._root, "#"), "#")
        for flat in flats:
            if not flat.get("properties") and not flat.get("required"):
                flat.setdefault("additionalProperties", False)  # A tool without parameters takes none.
        return self._either([self._flat(flat, "#") for flat in flats])

    def _error(self, path: str, problem: str) -> GrammarError:
        return GrammarError(f"tool {self._name!r}, {path}: {problem}", None)

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
                raise self._error(place, "nothing finite can fit this schema")

    # Taking apart.

    def _expand(self, schema: Any, path: str) -> list[dict[str, Any]]:
        self._expanded += 1
        if self._expanded > _MOST_EXPANDED:
            raise self._error(path, f"the schema is too large: more than {_MOST_EXPANDED} parts after merging")
        if isinstance(schema, bool):
            return [{}] if schema else []
        if not isinstance(schema, Mapping):
            raise self._error(path, f"a schema is an object or a boolean, not {schema!r}")
        self._check_keywords(schema, path)
        flat = self._normal(schema, path)
        if flat is None:
            return []
        flats = [flat]
        if "$ref" in schema:
            flats = self._combine(flats, [{"$ref": schema["$ref"]}], path)
        for keyword in ("allOf", "anyOf", "oneOf"):
            if keyword in schema:
                flats = self._combined_with(keyword, schema[keyword], flats, path)
        return flats

    def _check_keywords(self, schema: Mapping[str, Any], path: str) -> None:
        for keyword, harmless in _REFUSED.items():
            if keyword not in schema or any(_same(schema[keyword], value) for value in harmless):
                continue
            if keyword == "if" and not schema.keys() & {"then", "else"}:
                continue
            raise self._error(path, f"{keyword!r} cannot be enforced")

    def _combined_with(
        self, keyword: str, branches: Any, flats: list[dict[str, Any]], path: str
    ) -> list[dict[str, Any]]:
        if not isinstance(branches, list) or not branches:
            raise self._error(path, f"{keyword!r} needs a list of schemas")
        expanded = [self._expand(branch, f"{path}/{keyword}/{i}") for i, branch in enumerate(branches)]
        if keyword == "allOf":
            for options in expanded:
                flats = self._combine(flats, options, path)
            return flats
        combined = [self._combine(flats, options, path) for options in expanded]
        if keyword == "oneOf":
            for one, other in combinations(combined, 2):
                if not all(self._disjoint(a, b, path) for a in one for b in other):
                    raise self._error(path, "'oneOf' cannot be enforced: its branches may overlap; use 'anyOf'")
        return [flat for options in combined for flat in options]

    def _combine(self, some: list[dict[str, Any]], others: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
        """What fits one of ``some`` and one of ``others``. References stay where nothing is to be merged."""
        found: list[dict[str, Any]] = []
        for one in some:
            for other in others:
                if not one or not other:
                    found.append(dict(one or other))
                    continue
                for a in self._inlined(one, path):
                    merged = (self._merged(a, b, path) for b in self._inlined(other, path))
                    found.extend(m for m in merged if m is not None)
                if len(found) > _MOST_ALTERNATIVES:
                    raise self._error(path, f"more than {_MOST_ALTERNATIVES} combinations of alternatives")
        return found

    def _inlined(self, flat: dict[str, Any], path: str) -> list[dict[str, Any]]:
        if "$ref" not in flat:
            return [flat]
        reference = flat["$ref"]
        if reference in self._inlining:
            raise self._error(path, f"'$ref' to {reference!r} stands next to other keywords and leads back to itself")
        self._inlining.append(reference)
        try:
            expanded = self._expand(self._target(reference, path), reference)
            return [inner for option in expanded for inner in self._inlined(option, path)]
        finally:
            self._inlining.pop()

    def _target(self, reference: Any, path: str) -> Any:
        if not isinstance(reference, str) or not re.fullmatch(r"#(/.*)?", reference, re.DOTALL):
            raise self._error(path, f"'$ref' to {reference!r}: only places of the same schema (#/...) can be used")
        found: Any = self._root
        for part in reference.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise self._error(path, f"'$ref' to {reference!r}: there is no such place")
        return found

    def _normal(self, schema: Mapping[str, Any], path: str) -> dict[str, Any] | None:
        """The keywords that hold for one value, in the form of a flat schema; None if nothing fits."""
        flat = {key: schema[key] for key in schema if key in _KEPT}
        self._check_shapes(flat, path)
        if "type" in flat:
            types = [flat["type"]] if isinstance(flat["type"], str) else flat["type"]
            flat["type"] = [t for t in _TYPES if t in types and not (t == "integer" and "number" in types)]
        _whole_bounds(flat)
        if isinstance(flat.get("items"), list):  # Before 2020, tuples were written so.
            flat["prefixItems"], rest = flat.pop("items"), flat.pop("additionalItems", True)
            flat["items"] = rest
        flat.pop("additionalItems", None)
        if "pattern" in flat:
            flat["patterns"] = [flat.pop("pattern")]
        form = flat.pop("format", None)
        if form in FORMATS:
            flat["formats"] = [form]
        if "required" in flat:
            flat["required"] = sorted(set(flat["required"]))
        if "const" in flat:
            const = flat.pop("const")
            flat["enum"] = [v for v in flat.get("enum", [const]) if _same(v, const)]
        return None if flat.get("enum") == [] else flat

    def _check_shapes(self, flat: dict[str, Any], path: str) -> None:
        def need(key: str, fine: Callable[[Any], bool], what: str) -> None:
            if key in flat and not fine(flat[key]):
                raise self._error(path, f"{key!r} must be {what}, not {flat[key]!r}")

        def known(value: Any) -> bool:
            types = value if isinstance(value, list) else [value]
            return bool(types) and all(t in _TYPES for t in types)

        need("type", known, f"one or several of {', '.join(_TYPES)}")
        for key in _COUNTS:
            need(key, lambda v: _is_number(v) and v >= 0 and int(v) == v, "a whole number")
            if key in flat:
                flat[key] = int(flat[key])
        for key in _BOUNDS:
            need(key, lambda v: _is_number(v) or isinstance(v, bool), "a number")
        need("multipleOf", lambda v: _is_number(v) and v > 0, "a number above 0")
        need("enum", lambda v: isinstance(v, list) and bool(v), "a list of values")
        need("pattern", lambda v: isinstance(v, str), "a string")
        need("properties", lambda v: isinstance(v, Mapping) and all(isinstance(k, str) for k in v), "an object")
        need("required", lambda v: isinstance(v, list) and all(isinstance(k, str) for k in v), "a list of names")
        need("prefixItems", lambda v: isinstance(v, list), "a list of schemas")
        need("unevaluatedProperties", lambda v: isinstance(v, bool), "a boolean here")

    # Merging flat schemas.

    def _merged(self, a: dict[str, Any], b: dict[str, Any], path: str) -> dict[str, Any] | None:
        """What fits both, or None if nothing does."""
        out = {**a, **b}
        for key in a.keys() & b.keys():
            if key in _COUNTS or key in _BOUNDS:
                out[key] = max(a[key], b[key]) if key in _LOWER else min(a[key], b[key])
        if "type" in a and "type" in b:
            out["type"] = _common_types(a["type"], b["type"])
        if "enum" in a and "enum" in b:
            out["enum"] = [value for value in a["enum"] if any(_same(value, other) for other in b["enum"])]
        if out.get("type") == [] or out.get("enum") == []:
            return None
        if "multipleOf" in a and "multipleOf" in b:
            out["multipleOf"] = self._common_multiple(a["multipleOf"], b["multipleOf"], path)
        for key in ("patterns", "formats", "required"):
            if key in a and key in b:
                out[key] = sorted({*a[key], *b[key]})
        if "unevaluatedProperties" in a and "unevaluatedProperties" in b:
            out["unevaluatedProperties"] = a["unevaluatedProperties"] and b["unevaluatedProperties"]
        _merge_objects(a, b, out)
        _merge_arrays(a, b, out)
        return out

    def _common_multiple(self, a: Any, b: Any, path: str) -> Any:
        low, high = sorted((a, b))
        if (Fraction(str(high)) / Fraction(str(low))).denominator != 1:
            raise self._error(path, f"'multipleOf' of {a} and {b} at once cannot be enforced")
        return high

    def _disjoint(self, a: dict[str, Any], b: dict[str, Any], path: str) -> bool:
        """Whether it is clear that no value fits both."""
        if "$ref" in a or "$ref" in b:
            pairs = [(x, y) for x in self._inlined(a, path) for y in self._inlined(b, path)]
            return all(self._disjoint(x, y, path) for x, y in pairs)
        if "type" in a and "type" in b and not _common_types(a["type"], b["type"]):
            return True
        for one, other in ((a, b), (b, a)):
            if "enum" in one:
                return not any(_may_fit(value, one) and _may_fit(value, other) for value in one["enum"])
        if a.get("type") != ["object"] or b.get("type") != ["object"]:
            return False
        return _closed_against(a, b) or _closed_against(b, a) or self._told_apart(a, b, path)

    def _told_apart(self, a: dict[str, Any], b: dict[str, Any], path: str) -> bool:
        """Whether a required property has values in one schema that it cannot have in the other."""
        ours, theirs = a.get("properties", {}), b.get("properties", {})
        if self._compared >= _DEEPEST_COMPARISON:
            return False
        self._compared += 1
        try:
            return self._any_apart(a, b, ours, theirs, path)
        finally:
            self._compared -= 1

    def _any_apart(
        self, a: dict[str, Any], b: dict[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str
    ) -> bool:
        for name in sorted({*a.get("required", []), *b.get("required", [])} & ours.keys() & theirs.keys()):
            if ours[name] is theirs[name]:
                continue
            where = f"{path}/properties/{name}"
            pairs = ((x, y) for x in self._expand(ours[name], where) for y in self._expand(theirs[name], where))
            if all(self._disjoint(x, y, where) for x, y in pairs):
                return True
        return False

    # Writing down.

    def _value(self, schema: Any, path: str) -> _Expr | None:
        if not isinstance(schema, Mapping) or not schema.keys() & {"allOf", "anyOf", "oneOf", "$ref"}:
            return self._either([self._flat(flat, path) for flat in self._expand(schema, path)])
        # What is merged into a schema may lead back to it: then it becomes a rule of its own.
        key = json.dumps(schema, sort_keys=True, default=str)
        if key in self._open:
            name = self._open[key] = self._open[key] or self._writer.rule_name()
            return _Expr(name, frozenset({name}))
        self._open[key] = ""
        made = self._either([self._flat(flat, path) for flat in self._expand(schema, path)])
        name = self._open.pop(key)
        return self._define(name, made, path) if name else made

    def _define(self, name: str, made: _Expr | None, path: str) -> _Expr:
        self._places[name] = path
        self._alternatives[name] = [] if made is None else [made]
        self._writer.rules[name] = '""' if made is None else made.text
        return _Expr(name, frozenset({name}))

    def _either(self, options: Iterable[_Expr | None]) -> _Expr | None:
        """An alternation, or None if there is nothing to choose."""
        fitting = list(dict.fromkeys(option for option in options if option is not None))
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        text = " | ".join(option.text for option in fitting)
        if any(not option.needs for option in fitting):
            return _Expr(f"({text})")
        name = self._writer.rule(text)
        self._alternatives[name] = fitting
        return _Expr(name, frozenset({name}))

    def _flat(self, flat: dict[str, Any], path: str) -> _Expr | None:
        if "$ref" in flat:
            return self._reference(flat["$ref"], path)
        if "enum" in flat:
            return self._constants(flat, path)
        types = flat.get("type") or [t for t in _TYPES if any(key in flat for key in _SPEAKS_OF.get(t, ()))]
        if not types:
            return _Expr("any")
        return self._either(self._typed(kind, flat, path) for kind in types)

    def _typed(self, kind: str, flat: dict[str, Any], path: str) -> _Expr | None:
        if kind == "null":
            return _Expr('"null"')
        if kind == "boolean":
            return _Expr('("true" | "false")')
        if kind in ("integer", "number"):
            return self._number(kind, flat, path)
        if kind == "string":
            return self._string(flat, path)
        return self._array(flat, path) if kind == "array" else self._object(flat, path)

    def _reference(self, reference: Any, path: str) -> _Expr:
        target = self._target(reference, path)
        if reference not in self._rules:
            name = self._rules[reference] = self._writer.rule_name()
            self._define(name, self._value(target, reference), reference)
        name = self._rules[reference]
        return _Expr(name, frozenset({name}))

    def _constants(self, flat: dict[str, Any], path: str) -> _Expr | None:
        values = [value for value in flat["enum"] if _may_fit(value, flat)]
        for value in values:
            kind = _type_of(value)
            unchecked = [key for key in _SPEAKS_OF.get(kind, ()) if key in flat]
            if kind in ("array", "object") and unchecked:
                raise self._error(path, f"'enum' with an {kind} next to {unchecked[0]!r} cannot be enforced")
        texts = [value for value in values if isinstance(value, str)]
        for text in texts:
            self._check_text(text, path)
        options = [_Expr(self._constant(value, path)) for value in values if value == "" or value not in texts]
        named = [_quoted(text) for text in dict.fromkeys(texts) if text]
        if named:
            options.insert(0, _Expr(f"{_QUOTE} {self._writer.terminal(' | '.join(named))} {_QUOTE}"))
        return self._either(options)

    def _constant(self, value: Any, path: str) -> str:
        if isinstance(value, str):
            self._check_text(value, path)
            return f"{_QUOTE} {_quoted(value)} {_QUOTE}" if value else f"{_QUOTE} {_QUOTE}"
        if isinstance(value, list):
            return f'"[" {_joined([self._constant(item, path) for item in value])} "]"'
        if isinstance(value, Mapping):
            pairs = _dictsorted(value)
            for key, _ in pairs:
                self._check_key(key, path)
            entries = [f"{_quoted(f'{key}:')} {self._constant(item, path)}" for key, item in pairs]
            return f'"{{" {_joined(entries)} "}}"'
        try:
            return _quoted(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise self._error(path, f"'enum' or 'const' holds {value!r}, which JSON has no form for") from error

    def _number(self, kind: str, flat: dict[str, Any], path: str) -> _Expr | None:
        limits = {key: flat[key] for key in _SPEAKS_OF["number"] if key in flat}
        if not limits:
            return _Expr(kind.upper())
        schema = json.dumps({"type": kind, **limits, "x-guidance": {"whitespace_flexible": False}})
        problem = _problem_of(f"start: %json {schema}")
        if "nsatisfiable" in problem or "range" in problem:
            return None
        if problem:
            raise self._error(path, f"{', '.join(map(repr, limits))} cannot be enforced: {problem}")
        return _Expr(self._writer.rule(f"%json {schema}"))

    def _string(self, flat: dict[str, Any], path: str) -> _Expr | None:
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
            return _Expr(f"{_QUOTE} TEXT {_QUOTE}")
        body = " & ".join(f"/{part}/" for part in parts)
        some = _matches_text(body)
        if some is None:
            return None
        return _Expr(f"{_QUOTE} {self._writer.terminal(body)} {_QUOTE}" if some else f"{_QUOTE} {_QUOTE}")

    def _pattern(self, pattern: str, path: str) -> str:
        try:
            return whole_regex(pattern)
        except ValueError as error:
            raise self._error(path, f"'pattern' {pattern!r} cannot be enforced: {error}") from error

    def _array(self, flat: dict[str, Any], path: str) -> _Expr | None:
        low, high = flat.get("minItems", 0), flat.get("maxItems")
        heads: list[_Expr] = []
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
        return _list_of(heads, rest, low, high)

    def _object(self, flat: dict[str, Any], path: str) -> _Expr | None:
        declared = dict(flat.get("properties", {}))
        closed = flat.get("unevaluatedProperties", True) is False
        others = flat.get("additionalProperties", not (closed or flat.get("properties") == {}))
        required = flat.get("required", [])
        if not declared and not required:
            return self._map(others, flat, path)
        for name in required:
            declared.setdefault(name, False if closed else flat.get("additionalProperties", True))
        entries: list[tuple[_Expr, bool]] = []
        for name, schema in _dictsorted(declared):
            value = self._value(schema, f"{path}/properties/{name}")
            if value is not None:
                self._check_key(name, path)
                entries.append((_Expr(f"{_quoted(name + ':')} {value.text}", value.needs), name in required))
            elif name in required:
                return None
        return self._record(entries, flat, path)

    def _check_text(self, text: str, path: str) -> None:
        if _CONTROL.search(text):
            raise self._error(path, f"{text!r} is spelled like a control token and cannot be asked for")

    def _check_key(self, key: str, path: str) -> None:
        self._check_text(key, path)
        if _KEY_ENDS.search(key):
            raise self._error(
                path, f"the key {key!r} cannot be written bare: it is empty or holds a blank end or :,{{}}[]"
            )

    def _record(self, entries: list[tuple[_Expr, bool]], flat: dict[str, Any], path: str) -> _Expr | None:
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
            raise self._error(path, f"'minProperties' of {low} cannot be enforced")
        if high is not None and high < len(entries):
            raise self._error(path, f"'maxProperties' of {high} cannot be enforced")
        if not entries:
            return _Expr('"{" "}"')
        if not needed:
            inner = self._any_of(entries)
            return _Expr(f'"{{" {inner} "}}"' if low else f'"{{" {inner}? "}}"')
        first = next(index for index, (_, must) in enumerate(entries) if must)
        parts = [f'({entry.text} ",")?' for entry, _ in entries[:first]]
        parts.append(entries[first][0].text)
        parts += [f'"," {entry.text}' if must else f'("," {entry.text})?' for entry, must in entries[first + 1 :]]
        needs = frozenset(need for entry, must in entries if must for need in entry.needs)
        return _Expr(f'"{{" {" ".join(parts)} "}}"', needs)

    def _any_of(self, entries: list[tuple[_Expr, bool]]) -> str:
        """One or more of the entries in their order: one rule per entry for what may follow it."""
        tail, options = "", []
        for entry, _ in reversed(entries):
            options.append(f"{entry.text} {tail}".strip())
            tail = self._writer.rule(f'("," {entry.text})? {tail}'.strip())
        return f"({' | '.join(reversed(options))})"

    def _map(self, others: Any, flat: dict[str, Any], path: str) -> _Expr | None:
        """An object of unknown keys."""
        low, high = flat.get("minProperties", 0), flat.get("maxProperties")
        value = _Expr("scalar") if others is True else self._value(others, f"{path}/additionalProperties")
        if value is None or high == 0:
            return None if low else _Expr('"{" "}"')
        if low > 1:  # A key written twice would count twice.
            raise self._error(path, f"'minProperties' of {low} cannot be enforced")
        entry = f'KEY ":" {value.text}'
        more = _repeated(f'("," {entry})', 0, None if high is None else high - 1)
        inner = f"{entry} {more}".strip()
        return _Expr(f'"{{" {inner} "}}"', value.needs) if low else _Expr(f'"{{" ({inner})? "}}"')


# Values.


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf") and value == value
    )


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _same(a: Any, b: Any) -> bool:
    """Equality as JSON Schema has it: 1 and 1.0 are one number, true is none."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _may_fit(value: Any, flat: dict[str, Any]) -> bool:
    """Whether a value fits, as far as scalars are concerned; arrays and objects are looked at by type only."""
    kind = _type_of(value)
    if kind == "number" and not _is_number(value):
        return False
    types = flat.get("type", _TYPES)
    if kind not in types and not (kind == "number" and "integer" in types and value == int(value)):
        return False
    if "enum" in flat and not any(_same(value, other) for other in flat["enum"]):
        return False
    if kind == "string":
        fits = flat.get("minLength", 0) <= len(value) <= flat.get("maxLength", len(value))
        return fits and all(re.search(pattern, value) for pattern in flat.get("patterns", []))
    if kind == "number":
        step = Fraction(str(flat.get("multipleOf", 0)))
        return (
            flat.get("minimum", value) <= value <= flat.get("maximum", value)
            and not value <= flat.get("exclusiveMinimum", value - 1)
            and not value >= flat.get("exclusiveMaximum", value + 1)
            and (step == 0 or Fraction(str(value)) % step == 0)
        )
    return True


def _dictsorted(mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The order of jinja's ``dictsort``."""
    return sorted(mapping.items(), key=lambda pair: pair[0].lower())


# Flat schemas.


def _whole_bounds(flat: dict[str, Any]) -> None:
    """Draft 4 has booleans that make the other bound exclusive."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(flat.get(exclusive), bool) and flat.pop(exclusive) and bound in flat:
            flat[exclusive] = flat.pop(bound)


def _common_types(a: Sequence[str], b: Sequence[str]) -> list[str]:
    def covered(kind: str, types: Sequence[str]) -> bool:
        return kind in types or (kind == "integer" and "number" in types)

    return [kind for kind in _TYPES if covered(kind, a) and covered(kind, b) and (kind in a or kind in b)]


def _both(a: Any, b: Any) -> Any:
    if a is True or b is True:
        return b if a is True else a
    return False if a is False or b is False else {"allOf": [a, b]}


def _merge_objects(a: dict[str, Any], b: dict[str, Any], out: dict[str, Any]) -> None:
    if "additionalProperties" in a and "additionalProperties" in b:
        out["additionalProperties"] = _both(a["additionalProperties"], b["additionalProperties"])
    if "properties" in a or "properties" in b:
        ours, theirs = a.get("properties", {}), b.get("properties", {})
        out["properties"] = {
            name: _both(
                ours.get(name, a.get("additionalProperties", True)),
                theirs.get(name, b.get("additionalProperties", True)),
            )
            for name in dict.fromkeys((*ours, *theirs))
        }


def _merge_arrays(a: dict[str, Any], b: dict[str, Any], out: dict[str, Any]) -> None:
    if "items" in a and "items" in b:
        out["items"] = _both(a["items"], b["items"])
    ours, theirs = a.get("prefixItems", []), b.get("prefixItems", [])
    if ours or theirs:
        length = max(len(ours), len(theirs))
        padded = [
            [*heads, *[flat.get("items", True)] * (length - len(heads))] for heads, flat in ((ours, a), (theirs, b))
        ]
        out["prefixItems"] = [_both(x, y) for x, y in zip(*padded, strict=True)]


def _closed_against(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether ``b`` requires a property that ``a`` forbids."""
    closed = a.get("additionalProperties", True) is False
    return closed and any(name not in a.get("properties", {}) for name in b.get("required", []))


# Lark.


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _joined(parts: Sequence[str]) -> str:
    return ' "," '.join(parts)


def _repeated(unit: str, low: int, high: int | None) -> str:
    if high == 0:
        return ""
    if high is None:
        return f"{unit}*" if low == 0 else f"{unit}{{{low},}}"
    return f"{unit}{{{low},{high}}}"


def _list_of(heads: list[_Expr], rest: _Expr | None, low: int, high: int | None) -> _Expr:
    """An array: items of their own first, then others alike."""
    heads = heads[:high]
    needs = frozenset(need for head in heads[:low] for need in head.needs)
    if rest is not None and low > len(heads):
        needs |= rest.needs
    inner = ""
    if rest is not None and (high is None or high > len(heads)):
        least, most = max(low - len(heads), 0), None if high is None else high - len(heads)
        if heads:
            inner = _repeated(f'("," {rest.text})', least, most)
        else:
            more = _repeated(f'("," {rest.text})', max(least - 1, 0), None if most is None else most - 1)
            inner = f"{rest.text} {more}".strip()
            inner = inner if least else f"({inner})?"
    for index in reversed(range(len(heads))):
        comma = '"," ' if index else ""
        inner = f"{comma}{heads[index].text} {inner}".strip()
        inner = inner if index < low else f"({inner})?"
    return _Expr(f'"[" {inner} "]"' if inner else '"[" "]"', needs)


@lru_cache(maxsize=1024)
def _problem_of(lark: str) -> str:
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_lark(lark))
    return "; ".join(str(m).strip().splitlines()[0] for m in messages) if failed or messages else ""


@lru_cache(maxsize=1024)
def _matches_text(terminal: str) -> bool | None:
    """Whether a terminal matches any text but the empty one; None if it matches nothing at all."""
    from llguidance import LLMatcher, LLTokenizer

    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(f"start: T\nT: {terminal}"), log_level=0)
    if matcher.is_error():
        return True  # The whole grammar will tell.
    mask = int.from_bytes(matcher.compute_bitmask(), "little") & ~(1 << tokenizer.eos_token)
    if matcher.is_error() or not mask:  # A state in which nothing can follow is an error there.
        return False if not matcher.is_error() and matcher.is_accepting() else None
    return True
