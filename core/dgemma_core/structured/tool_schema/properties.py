"""What a flat schema says of the keys of an object, and of the values under them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dgemma_core.structured.tool_schema.json_values import common, found, may_fit
from dgemma_core.structured.tool_schema.keywords import Flat
from dgemma_core.structured.tool_schema.merging import both, own_schema


class Properties:
    """The properties of one flat schema of objects.

    Args:
        flat: the schema.
        options: a schema and its path to flat schemas without ``$ref``.
        path: its place.
    """

    def __init__(self, flat: Flat, options: Callable[[Any, str], list[Flat]], path: str) -> None:
        self._flat = flat
        self.patterns: dict[str, Any] = flat.get("patternProperties", {})
        self.key_schema = flat.get("propertyNames", True)
        # Schemas that a key must fit one of; None if any key will do.
        self.names = None
        if self.key_schema is not True:
            self.names = options(both({"type": "string"}, self.key_schema), f"{path}/propertyNames")

    @property
    def declared(self) -> dict[str, Any]:
        """Schemas of values by key: of declared, required and listed keys."""
        declared = dict.fromkeys(self._flat.get("properties", {}))
        declared |= dict.fromkeys(self._flat.get("required", []))
        listed = self._listed()
        if not declared and listed is not None:
            declared = dict.fromkeys(listed)
        return {name: self._schema(name) for name in declared}

    @property
    def undeclared(self) -> Any:
        """The schema of values under undeclared keys."""
        nothing = self._flat.get("properties") == {}
        return self._flat.get("additionalProperties", not nothing)

    def _listed(self) -> list[str] | None:
        """The keys, if there is a finite number of them."""
        if self.names is None or not all("enum" in flat for flat in self.names):
            return None
        values = [value for flat in self.names for value in flat["enum"] if may_fit(value, flat)]
        return list(dict.fromkeys(value for value in values if isinstance(value, str)))

    def _schema(self, name: str) -> Any:
        if self.names is not None and not any(_is_key(name, flat) for flat in self.names):
            return False
        matching = [schema for pattern, schema in self.patterns.items() if found(pattern, name)]
        schema = own_schema(self._flat, name)
        for more in matching:
            schema = both(schema, more)
        return schema


def _is_key(name: str, flat: Flat) -> bool:
    return may_fit(name, flat) and ("enum" not in flat or bool(common([name], flat["enum"])))
