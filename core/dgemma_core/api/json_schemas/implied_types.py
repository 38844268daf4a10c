"""Types that a schema's keywords imply where it has no ``type``.

JSON Schema lets ``{"properties": {...}}`` fit a list or a string, too. Nobody who writes it means this.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from dgemma_core.api.json_schemas.places import References, UnknownReferenceError, with_parts

logger = logging.getLogger(__name__)

_EXPLICIT = frozenset({"type", "enum", "const"})
_SPEAKS_OF = {
    "object": frozenset({
        "properties", "required", "additionalProperties", "patternProperties", "unevaluatedProperties",
        "minProperties", "maxProperties", "propertyNames", "dependentRequired", "dependentSchemas",
    }),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "patterns", "format", "formats"}),
}  # fmt: skip
"""Keywords by the type of the values they restrict; ``patterns`` and ``formats`` are those of flat schemas."""


def implied_types(keywords: Iterable[str], place: str = "#") -> list[str]:
    """The types of values that a schema without ``type`` means, by its keywords.

    Keywords of objects mean an object. Without them, all types that keywords speak of are meant. Where objects are
    meant although keywords speak of other types as well, a line in the log says so.

    Args:
        keywords: of the schema, and of schemas that hold beside it.
        place: of the schema, for the log.

    Returns:
        ``object``, ``array``, ``number`` and ``string`` in this order; empty if no keyword speaks of a type.
    """
    said = set(keywords)
    types = [kind for kind, names in _SPEAKS_OF.items() if said & names]
    if types[:1] != ["object"]:
        return types
    if len(types) > 1:
        logger.warning(
            "schema at %s: it has no 'type', and keywords of %s: it is taken for an object; add 'type' to it",
            place, " and ".join(types),
        )  # fmt: skip
    return ["object"]


def with_implied_types(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with a ``type`` at every place whose keywords imply one.

    A place keeps its values if it says its types in another way: by ``enum`` or ``const``, or by a schema beside it
    (``$ref``, ``allOf``, ``anyOf``, ``oneOf``).
    """
    return dict(_Typing(schema).typed(schema, "#"))


class _Typing:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._references = References(root)

    def typed(self, schema: Any, place: str, said: bool = False, inherited: tuple[str, ...] = ()) -> Any:
        """The schema with types.

        Args:
            schema: a schema.
            place: its place.
            said: whether a schema beside it says the types.
            inherited: types that the schema around it implies.
        """
        if not isinstance(schema, Mapping):
            return schema
        said = said or self._says(schema, unions=False)
        branches = [branch for key in ("anyOf", "oneOf") for branch in _list(schema, key)]
        mixed = any(self._mentions(branch) for branch in branches)
        types: tuple[str, ...] = ()
        if not said and not (len(schema) == 1 and "$ref" in schema):
            types = tuple(implied_types(self._keywords(schema), place)) or inherited
        known = said or bool(types)

        def part(value: Any, key: str, where: str) -> Any:
            if key in ("anyOf", "oneOf"):  # If some branches say their types, the others have those of this schema.
                return self.typed(value, where, said, types) if mixed else self.typed(value, where, known)
            return self.typed(value, where, said=known and key == "allOf")

        out = with_parts(schema, place, part)
        if types and not mixed:
            out["type"] = types[0] if len(types) == 1 else list(types)
        return out

    def _says(self, schema: Any, unions: bool = True, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a schema says the types of all its values. Without ``unions``, its own unions do not count."""
        if not isinstance(schema, Mapping):
            return False
        if schema.keys() & _EXPLICIT or any(self._says(part, seen=seen) for part in _list(schema, "allOf")):
            return True
        if unions:
            for key in ("anyOf", "oneOf"):
                if (parts := _list(schema, key)) and all(self._says(part, seen=seen) for part in parts):
                    return True
        reference = schema.get("$ref")
        if not isinstance(reference, str) or reference in seen:
            return False
        try:
            return self._says(self._references.target(reference), seen=seen | {reference})
        except UnknownReferenceError:
            return True

    def _mentions(self, schema: Any, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a schema says the types of some of its values."""
        if not isinstance(schema, Mapping):
            return False
        parts = [part for key in ("allOf", "anyOf", "oneOf") for part in _list(schema, key)]
        return self._says(schema) or any(self._mentions(part) for part in parts)

    def _keywords(self, schema: Any, seen: frozenset[str] = frozenset()) -> set[str]:
        """The keywords of a schema and of all that hold beside it."""
        if not isinstance(schema, Mapping):
            return set()
        found = set(schema)
        for part in _list(schema, "allOf"):
            found |= self._keywords(part, seen)
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            found |= self._keywords(self._references.target(reference), seen | {reference})
        return found


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []
