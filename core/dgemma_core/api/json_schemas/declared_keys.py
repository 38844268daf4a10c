"""Closes objects: those that declare keys hold no others, unless the schema says so.

JSON Schema lets an object with ``properties`` hold any other keys, too. A model that writes such keys leaves out the
declared ones, and whoever reads the object into a class loses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dgemma_core.api.json_schemas.places import References, UnknownReferenceError, with_parts

# A schema with one of these says itself which keys or values are meant.
_SAYS_SO = frozenset({"additionalProperties", "unevaluatedProperties", "propertyNames", "enum", "const"})
_OWN = frozenset({"properties", "patternProperties", "required", "allOf"})
_PARTS = ("allOf", "anyOf", "oneOf")
_UNIONS = ("anyOf", "oneOf")


def with_declared_keys_only(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with ``additionalProperties: false`` at every object that declares keys and says nothing of others.

    ``properties``, ``patternProperties`` and ``required`` declare keys. Schemas that hold at the same place (``allOf``,
    ``$ref`` beside other keywords, the branches of a union beside other keywords) declare keys for one another. What
    fits the result also fits the schema, except where a ``oneOf`` has branches that overlap. If a place that declares
    keys cannot be found, for example in another document, nothing is closed.
    """
    return _Closing(schema).whole()


@dataclass
class _Keys:
    """Declared keys, in order, and patterns of keys. ``least`` is the least count of keys that is asked for."""

    names: dict[str, bool] = field(default_factory=dict)
    patterns: dict[str, bool] = field(default_factory=dict)
    declared: bool = False
    least: int = 0

    def add(self, schema: Mapping[str, Any]) -> None:
        """Add a schema's own keys."""
        for keyword, keys in (("properties", self.names), ("patternProperties", self.patterns)):
            if isinstance(schema.get(keyword), Mapping):
                keys.update(dict.fromkeys(schema[keyword], True))
                self.declared = True
        required = schema.get("required")
        if isinstance(required, list):
            self.names.update(dict.fromkeys((name for name in required if isinstance(name, str)), True))
            self.declared = self.declared or bool(required)
        if isinstance(least := schema.get("minProperties"), int):
            self.least = max(self.least, least)

    def closed(self) -> dict[str, Any]:
        """A schema for objects of these keys."""
        patterns = {"patternProperties": self.patterns} if self.patterns else {}
        return {"properties": self.names, **patterns, "additionalProperties": False}


class _Closing:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._references = References(root)
        self._opened: dict[str, str] = {}  # name of the open copy by $ref
        self._copies: dict[str, Any] = {}

    def whole(self) -> dict[str, Any]:
        try:
            closed = self._closed(self._root, _Keys())
        except UnknownReferenceError:
            return dict(self._root)
        if self._copies:
            closed["$defs"] = {**closed.get("$defs", {}), **self._copies}
        return dict(closed)

    def _closed(self, schema: Any, around: _Keys) -> Any:
        """The schema, closed.

        Args:
            schema: a schema.
            around: keys that schemas beside it declare.
        """
        if schema is True and around.names:
            schema = {}
        if not isinstance(schema, Mapping) or not _may_be_object(schema):
            return self._open(schema)
        combined = ("$ref" in schema) + ("anyOf" in schema) + ("oneOf" in schema) > 1
        if not combined and not around.names and not schema.keys() & _OWN:
            return with_parts(schema, "", lambda part, *_: self._closed(part, _Keys()))
        union = next((key for key in _UNIONS if key in schema), None)
        out = self._open(schema)
        if self._says_so(schema):
            return out
        keys = self._keys(schema, around, without=union)
        if union is not None:
            out[union] = [self._closed(branch, keys) for branch in schema[union]]
        elif not keys.declared or (keys.least > len(keys.names) and not keys.patterns):
            pass
        elif "allOf" in schema or "$ref" in schema or around.names:
            # In a part of its own, so that the keys keep their order.
            out["allOf"] = [*out.get("allOf", []), keys.closed()]
        else:
            if keys.names:
                out["properties"] = _with_all(out.get("properties", {}), keys.names)
            out["additionalProperties"] = False
        return out

    def _open(self, schema: Any) -> Any:
        """The schema with closed objects in it, but not closed itself."""
        if not isinstance(schema, Mapping):
            return schema

        def part(value: Any, key: str, _: str) -> Any:
            return self._open(value) if key in _PARTS else self._closed(value, _Keys())

        out = with_parts(schema, "", part)
        if isinstance(reference := schema.get("$ref"), str):
            out["$ref"] = self._open_reference(reference)
        return out

    def _open_reference(self, reference: str) -> str:
        """A reference to a copy of its target that is not closed."""
        target = self._references.target(reference)
        if not isinstance(target, Mapping) or not _may_be_object(target) or target.keys() & {"enum", "const"}:
            return reference
        if reference not in self._opened:
            taken = {*self._root.get("$defs", {}), *self._copies}
            name = next(name for n in range(len(taken) + 1) if (name := f"open{n}") not in taken)
            self._opened[reference] = f"#/$defs/{name}"
            self._copies[name] = {}  # Its name is taken while it is made.
            copy = self._open({k: v for k, v in target.items() if k not in ("$defs", "definitions")})
            self._copies[name] = copy
        return self._opened[reference]

    def _keys(self, schema: Any, around: _Keys, without: str | None = None) -> _Keys:
        """The keys that a schema and those around it declare, without those of one of its unions."""
        keys = _Keys(dict(around.names), dict(around.patterns), around.declared, around.least)
        self._collect({k: v for k, v in schema.items() if k != without}, keys, frozenset())
        return keys

    def _collect(self, schema: Any, keys: _Keys, seen: frozenset[str]) -> None:
        if not isinstance(schema, Mapping):
            return
        for key in schema:  # in the order of the text
            if key in ("properties", "patternProperties", "required", "minProperties"):
                keys.add({key: schema[key]})
            elif key in _PARTS and isinstance(schema[key], list):
                for part in schema[key]:
                    self._collect(part, keys, seen)
            elif key == "$ref" and schema[key] not in seen:
                self._collect(self._references.target(schema[key]), keys, seen | {schema[key]})

    def _says_so(self, schema: Any, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a schema, or one that must hold as well, says which keys or values it means."""
        if not isinstance(schema, Mapping):
            return False
        if schema.keys() & _SAYS_SO or any(self._says_so(part, seen) for part in schema.get("allOf", ())):
            return True
        reference = schema.get("$ref")
        if not isinstance(reference, str) or reference in seen:
            return False
        return self._says_so(self._references.target(reference), seen | {reference})


def _with_all(properties: Mapping[str, Any], names: Mapping[str, bool]) -> dict[str, Any]:
    """The properties, and after them the other names, each with any value."""
    return {**properties, **{name: True for name in names if name not in properties}}


def _may_be_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type", "object")
    return "object" in (kind if isinstance(kind, list) else [kind])
