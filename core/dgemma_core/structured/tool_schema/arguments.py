"""Lark for the arguments of one tool's calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dgemma_core.api.json_schemas.implied_types import implied_types
from dgemma_core.structured.lark import Expr, LarkWriter, list_of, quoted
from dgemma_core.structured.tool_schema.flat_schema import SchemaFlattener
from dgemma_core.structured.tool_schema.keywords import Flat
from dgemma_core.structured.tool_schema.objects import Entry, ObjectWriter
from dgemma_core.structured.tool_schema.rules import ValueRules
from dgemma_core.structured.tool_schema.scalars import ScalarWriter
from dgemma_core.structured.tool_schema.spelling import dictsorted, key_problem


class ArgumentsWriter:
    """Writes one tool's parameters as Lark.

    Args:
        name: of the tool.
        schema: of its parameters; None if it has none.
        writer: of the whole grammar.
    """

    def __init__(self, name: str, schema: Any, writer: LarkWriter) -> None:
        self._root = {} if schema is None else schema
        self._schemas = SchemaFlattener(name, self._root)
        self._rules = ValueRules(writer)
        self._scalars = ScalarWriter(writer, self._rules, self._schemas.error)
        self._objects = ObjectWriter(writer, self._schemas.error)
        self._references: dict[str, str] = {}  # rules by $ref
        self._open: dict[str, str] = {}  # Schemas being written, each with its rule if it leads back to itself, or "".

    def write(self) -> str:
        """Lark for the arguments, braces included.

        Raises:
            GrammarError: not a schema, no arguments fit it, or a keyword that cannot be enforced; tool, place and
                keyword are named.
        """
        try:
            made = self._arguments()
        except RecursionError as error:
            problem = "the schema is nested too deep, or leads back to itself through 'allOf'"
            raise self._schemas.error("#", problem) from error
        if made is None:
            place, reason = next(iter(self._scalars.contradictions), ("#", ""))
            raise self._schemas.error(place, f"{reason and f'{reason}, so '}no arguments can fit this schema")
        endless = self._rules.endless()
        if endless is not None:
            raise self._schemas.error(endless, "nothing finite can fit this schema")
        return made.text

    def _arguments(self) -> Expr | None:
        flats = self._schemas.combine([{"type": ["object"]}], self._schemas.expand(self._root, "#"), "#")
        for flat in flats:
            if not flat.get("properties") and not flat.get("required"):
                flat.setdefault("additionalProperties", False)  # A tool without parameters takes no arguments.
        return self._rules.either([self._flat(flat, "#") for flat in flats])

    def _value(self, schema: Any, path: str) -> Expr | None:
        if not isinstance(schema, Mapping) or not schema.keys() & {"allOf", "anyOf", "oneOf", "$ref"}:
            return self._rules.either([self._flat(flat, path) for flat in self._schemas.expand(schema, path)])
        # A schema merged into this one may lead back to it. Then this one becomes a rule.
        key = json.dumps(schema, sort_keys=True, default=str)
        if key in self._open:
            name = self._open[key] = self._open[key] or self._rules.new_name()
            return Expr(name, frozenset({name}))
        self._open[key] = ""
        made = self._rules.either([self._flat(flat, path) for flat in self._schemas.expand(schema, path)])
        name = self._open.pop(key)
        return self._rules.define(name, made, path) if name else made

    def _flat(self, flat: Flat, path: str) -> Expr | None:
        if "$ref" in flat:
            return self._reference(flat["$ref"], path)
        if "enum" in flat:
            return self._scalars.constants(flat, path)
        types = flat.get("type") or implied_types(flat, path)
        if not types:
            return Expr("any")
        return self._rules.either(self._typed(kind, flat, path) for kind in types)

    def _typed(self, kind: str, flat: Flat, path: str) -> Expr | None:
        if kind == "null":
            return Expr('"null"')
        if kind == "boolean":
            return Expr('("true" | "false")')
        if kind in ("integer", "number"):
            return self._scalars.number(kind, flat, path)
        if kind == "string":
            return self._scalars.string(flat, path)
        return self._array(flat, path) if kind == "array" else self._object(flat, path)

    def _reference(self, reference: Any, path: str) -> Expr:
        target = self._schemas.target(reference, path)
        if reference not in self._references:
            name = self._references[reference] = self._rules.new_name()
            self._rules.define(name, self._value(target, reference), reference)
        name = self._references[reference]
        return Expr(name, frozenset({name}))

    def _array(self, flat: Flat, path: str) -> Expr | None:
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

    def _object(self, flat: Flat, path: str) -> Expr | None:
        declared = dict(flat.get("properties", {}))
        closed = flat.get("unevaluatedProperties", True) is False
        others = flat.get("additionalProperties", not (closed or flat.get("properties") == {}))
        required = flat.get("required", [])
        if not declared and not required:
            value = Expr("scalar") if others is True else self._value(others, f"{path}/additionalProperties")
            return self._objects.map_of(value, flat, path)
        for name in required:
            declared.setdefault(name, False if closed else flat.get("additionalProperties", True))
        entries: list[Entry] = []
        for name, schema in dictsorted(declared):
            value = self._value(schema, f"{path}/properties/{name}")
            if value is not None:
                if problem := key_problem(name):
                    raise self._schemas.error(path, problem)
                entries.append((Expr(f"{quoted(name + ':')} {value.text}", value.needs), name in required))
            elif name in required:
                return None
        return self._objects.record(entries, flat, path)
