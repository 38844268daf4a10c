"""Places of a JSON Schema: the schemas inside it, and those that ``$ref`` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

# Keywords that hold schemas: by name, in a list, alone.
NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
ALL_NAMED = NAMED | {"dependentSchemas"}
VALUES = frozenset({"const", "enum", "default", "examples"})  # keywords that hold values, not schemas
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_ALONE = frozenset({"items", "additionalItems", "additionalProperties"})
# Schemas under other keywords (``not``, ``if``, ``contains``, ...) are left alone: there, less would mean more.


class UnknownReferenceError(Exception):
    """A ``$ref`` to a place that is not looked up: another document, an anchor, or a place that is not there."""


def with_parts(schema: Mapping[str, Any], place: str, part: Callable[[Any, str, str], Any]) -> dict[str, Any]:
    """A copy of the schema in which the schemas directly inside it are replaced.

    Args:
        schema: a schema.
        place: its place.
        part: gets a schema inside it, the keyword that holds it, and its place.
    """
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            out[key] = {name: part(inner, key, f"{place}/{key}/{name}") for name, inner in value.items()}
        elif key in _LISTS and isinstance(value, list):
            out[key] = [part(inner, key, f"{place}/{key}/{index}") for index, inner in enumerate(value)]
        elif key in _ALONE:
            out[key] = part(value, key, f"{place}/{key}")
        else:
            out[key] = value
    return out


def rewritten(
    node: Any, change: Callable[[dict[str, Any], str], dict[str, Any]], kept: Set[str] = frozenset(), place: str = "#"
) -> Any:
    """A schema with ``change`` applied to each schema in it, inner ones first. Values and their keys stay as they are.

    Args:
        node: a schema, or a part of one.
        change: gets a schema and its place, and returns the schema instead.
        kept: keywords whose schemas are not changed.
        place: of ``node``.
    """
    if isinstance(node, list):
        return [rewritten(item, change, kept, f"{place}/{index}") for index, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    parts: dict[str, Any] = {}
    for key, value in node.items():
        inner = f"{place}/{key}"
        if key in VALUES:
            parts[key] = value
        elif key in ALL_NAMED and isinstance(value, Mapping):
            parts[key] = {name: rewritten(part, change, kept, f"{inner}/{name}") for name, part in value.items()}
        else:
            parts[key] = value if key in kept else rewritten(value, change, kept, inner)
    return change(parts, place)


def pointed(root: Any, pointer: str) -> Any:
    """What stands at a JSON pointer (https://www.rfc-editor.org/rfc/rfc6901), without percent signs.

    Raises:
        LookupError: there is no such place.
    """
    found = root
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise LookupError(pointer)
    return found


class References:
    """Finds the schemas that ``$ref`` names.

    Args:
        root: the whole schema.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        # A base address below the root would change what "#/..." means there.
        self._unclear = any(_has_address(value) for value in root.values())

    def target(self, reference: str) -> Any:
        """The schema at ``#/...``.

        Raises:
            UnknownReferenceError: any other form, or there is no such place.
        """
        if self._unclear or not (reference == "#" or reference.startswith("#/")) or "%" in reference:
            raise UnknownReferenceError(reference)
        try:
            return pointed(self._root, reference)
        except LookupError:
            raise UnknownReferenceError(reference) from None


def _has_address(node: Any) -> bool:
    if isinstance(node, list):
        return any(_has_address(item) for item in node)
    if not isinstance(node, Mapping):
        return False
    if any(isinstance(node.get(key), str) for key in ("$id", "id")):
        return True
    return any(_has_address(value) for key, value in node.items() if key not in VALUES)
