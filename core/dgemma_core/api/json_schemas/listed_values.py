"""Sets and maps of answers whose items or keys can be listed, in keywords that llguidance knows.

``uniqueItems`` becomes a list of the possible arrays, ``propertyNames`` becomes properties or a pattern of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, permutations
from math import comb, perm
from typing import Any

from dgemma_core.api.formats import FORMATS
from dgemma_core.api.json_schemas.places import References, UnknownReferenceError
from dgemma_core.api.patterns import whole_regex

_MOST_ARRAYS = 400
_MOST_INTEGERS = 64
_STRINGS = frozenset({"type", "title", "description"})


class ListedValues:
    """Rewrites the schemas of one document.

    Args:
        root: the whole schema.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._references = References(root)

    def rewritten(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema without ``uniqueItems`` and ``propertyNames``, where they can be written in another way."""
        if schema.get("uniqueItems") is False or schema.get("maxItems") in (0, 1):
            schema = {key: value for key, value in schema.items() if key != "uniqueItems"}
        if schema.get("uniqueItems") is True:
            schema = self._arrays(schema)
        return self._keys(schema) if "propertyNames" in schema else schema

    def _arrays(self, schema: dict[str, Any]) -> dict[str, Any]:
        if schema.keys() & {"enum", "const", "prefixItems", "contains"} or schema.get("type", "array") != "array":
            return schema
        values = self._values(schema.get("items", True))
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        if values is None or not isinstance(low, int):
            return schema
        counts = range(low, min(high if isinstance(high, int) else len(values), len(values)) + 1)
        if sum(perm(len(values), n) for n in counts) <= _MOST_ARRAYS:
            arrays = [list(array) for n in counts for array in permutations(values, n)]
        elif sum(comb(len(values), n) for n in counts) <= _MOST_ARRAYS:  # in the order of the list only
            arrays = [list(array) for n in counts for array in combinations(values, n)]
        else:
            return schema
        kept = {k: v for k, v in schema.items() if k not in ("uniqueItems", "items", "minItems", "maxItems", "type")}
        return {**kept, "enum": arrays} if arrays else {**kept, "allOf": [False]}

    def _keys(self, schema: dict[str, Any]) -> dict[str, Any]:
        names, declared = schema["propertyNames"], schema.get("properties", {})
        kept = {key: value for key, value in schema.items() if key != "propertyNames"}
        if names is True or names == {}:
            return kept
        if "patternProperties" in schema or not isinstance(declared, Mapping):
            return schema
        values = self._values(names)
        others = schema.get("additionalProperties", True)
        if values is not None:
            keys = [value for value in values if isinstance(value, str)]
            listed = {key: declared.get(key, others) for key in keys}
            forbidden = {key: False for key in declared if key not in listed}
            return {**kept, "properties": {**listed, **forbidden}, "additionalProperties": False}
        pattern = self._pattern(names)
        if pattern is None or declared:
            return schema
        return {**kept, "patternProperties": {pattern: others}, "additionalProperties": False}

    def _values(self, schema: Any, depth: int = 0) -> list[Any] | None:
        """The different values of a schema; None if they are not a short list."""
        if not isinstance(schema, Mapping) or depth > 8:
            return None
        rest = schema.keys() - {"title", "description", "default", "examples", "deprecated"}
        if rest == {"$ref"}:
            try:
                return self._values(self._references.target(str(schema["$ref"])), depth + 1)
            except UnknownReferenceError:
                return None
        if rest <= {"const", "type"} and "const" in rest:
            return [schema["const"]]
        if rest <= {"enum", "type"} and isinstance(schema.get("enum"), list):
            return _different(schema["enum"])
        if rest == {"anyOf"} and isinstance(schema["anyOf"], list):
            parts = [self._values(part, depth + 1) for part in schema["anyOf"]]
            return (
                None if any(part is None for part in parts) else _different([v for part in parts for v in part or []])
            )
        if rest == {"type"} and schema["type"] in ("boolean", "null"):
            return [False, True] if schema["type"] == "boolean" else [None]
        low, high = schema.get("minimum"), schema.get("maximum")
        if rest == {"type", "minimum", "maximum"} and schema["type"] == "integer" and isinstance(low, int):
            return list(range(low, high + 1)) if isinstance(high, int) and high - low <= _MOST_INTEGERS else None
        return None

    def _pattern(self, schema: Any) -> str | None:
        """A pattern that the texts of a schema have, and no others; None if there is none."""
        if isinstance(schema, Mapping) and schema.keys() == {"$ref"}:
            try:
                schema = self._references.target(str(schema["$ref"]))
            except UnknownReferenceError:
                return None
        if not isinstance(schema, Mapping) or schema.get("type", "string") != "string":
            return None
        said = schema.keys() - _STRINGS
        if said == {"pattern"} and isinstance(schema["pattern"], str):
            return str(schema["pattern"])
        if said == {"format"} and (form := FORMATS.get(str(schema["format"]))) and form.longest is None:
            return f"^(?:{whole_regex(form.pattern, search=False)})$"
        low, high = schema.get("minLength", 0), schema.get("maxLength", "")
        return f"^(?s:.{{{low},{high}}})$" if said and said <= {"minLength", "maxLength"} else None


def _different(values: list[Any]) -> list[Any]:
    """The values without repetitions: 1 and 1.0 are the same, 1 and true are not."""
    kept: list[Any] = []
    for value in values:
        if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in kept):
            kept.append(value)
    return kept
