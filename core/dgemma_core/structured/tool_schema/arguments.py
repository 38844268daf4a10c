"""Lark for the arguments of one tool's calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dgemma_core.api.json_schemas.implied_types import implied_types
from dgemma_core.structured.lark import Expr, LarkWriter, list_of
from dgemma_core.structured.tool_schema.flat_schema import SchemaFlattener
from dgemma_core.structured.tool_schema.json_values import listed
from dgemma_core.structured.tool_schema.keywords import Flat
from dgemma_core.structured.tool_schema.merging import both
from dgemma_core.structured.tool_schema.objects import Entry, ObjectWriter
from dgemma_core.structured.tool_schema.problems import Problems
from dgemma_core.structured.tool_schema.properties import Properties
from dgemma_core.structured.tool_schema.rules import ValueRules
from dgemma_core.structured.tool_schema.scalars import ScalarWriter
from dgemma_core.structured.tool_schema.sequences import SequenceWriter
from dgemma_core.structured.tool_schema.spelling import dictsorted, key_with_colon

ANY_OBJECT = '"{" (KEY ":" any ("," KEY ":" any)*)? "}"'


class ArgumentsWriter:
    """Writes one tool's parameters as Lark.

    Args:
        name: of the tool.
        schema: of its parameters; None if it has none.
        writer: of the whole grammar.
        strict: whether to refuse what cannot be enforced; otherwise it is widened, with a warning.
    """

    def __init__(self, name: str, schema: Any, writer: LarkWriter, strict: bool = True) -> None:
        self._writer = writer
        self._problems = Problems(name, strict)
        self._schemas = SchemaFlattener(self._problems, {} if schema is None else schema)
        self._rules = ValueRules(writer)
        self._scalars = ScalarWriter(writer, self._rules, self._problems)
        self._objects = ObjectWriter(writer, self._problems)
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
        except RecursionError:
            problem = "the schema is nested too deep, or leads back to itself through 'allOf'"
            self._problems.widen("#", problem)
            return ANY_OBJECT
        if made is None:
            place, reason = next(iter(self._scalars.contradictions), ("#", ""))
            raise self._problems.error(place, f"{reason and f'{reason}, so '}no arguments can fit this schema")
        endless = self._rules.endless()
        if endless is not None:
            raise self._problems.error(endless, "nothing finite can fit this schema")
        return made.text

    def _arguments(self) -> Expr | None:
        flats = self._schemas.combine([{"type": ["object"]}], self._schemas.expand(self._schemas.root, "#"), "#")
        for flat in flats:
            if not flat.keys() & {"properties", "required", "patternProperties", "propertyNames"} or not any(
                flat.get(key) for key in ("properties", "required", "patternProperties", "propertyNames")
            ):
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
        if flat.get("uniqueItems") and high not in (0, 1):
            unique = self._unique_items(flat, path)
            if unique is not None:
                text = SequenceWriter(self._writer, [(value, False) for value in unique], low, high).text(
                    any_order=True
                )
                if text is not None or low > len(unique):
                    return None if text is None else Expr(f'"[" {text} "]"')
            self._problems.widen(path, "'uniqueItems' cannot be enforced: the items have no short list of values")
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

    def _unique_items(self, flat: Flat, path: str) -> list[Expr] | None:
        """Lark for each different item of an array; None if they cannot be listed."""
        if flat.get("prefixItems"):
            return None
        values = listed(self._schemas.options(flat.get("items", True), f"{path}/items"))
        if values is None:
            return None
        written = [self._scalars.constants({"enum": [value]}, f"{path}/items") for value in values]
        return [value for value in written if value is not None]

    def _object(self, flat: Flat, path: str) -> Expr | None:
        properties = Properties(flat, self._schemas.options, path)
        declared, required = properties.declared, flat.get("required", [])
        if not declared and properties.patterns:
            return self._objects.map_of(self._entries_by_pattern(properties, path), flat, path)
        if not declared:
            others = properties.undeclared
            value = Expr("scalar") if others is True else self._value(others, f"{path}/additionalProperties")
            key = Expr("KEY") if properties.names is None else self._scalars.key(properties.names, path)
            return self._objects.map_of(_entry(key, value), flat, path)
        entries: list[Entry] = []
        for name, schema in dictsorted(declared):
            value = self._value(schema, f"{path}/properties/{name}")
            if value is not None:
                entries.append((Expr(f"{key_with_colon(name)} {value.text}", value.needs), name in required))
            elif name in required:
                return None
        return self._objects.record(entries, flat, path)

    def _entries_by_pattern(self, properties: Properties, path: str) -> Expr | None:
        """A key that has one of the patterns, with its value."""
        entries = []
        for pattern, schema in properties.patterns.items():
            key = both({"type": "string", "pattern": pattern}, properties.key_schema)
            flats = self._schemas.options(key, f"{path}/patternProperties")
            others = [other for other in properties.patterns if other != pattern]
            value = self._value(schema, f"{path}/patternProperties/{pattern}")
            entries.append(_entry(self._scalars.key(flats, path, others), value))
        return self._rules.either(entries)


def _entry(key: Expr | None, value: Expr | None) -> Expr | None:
    return None if key is None or value is None else Expr(f'{key.text} ":" {value.text}', value.needs)
