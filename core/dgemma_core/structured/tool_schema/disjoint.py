"""Whether two branches of ``oneOf`` exclude each other; then ``oneOf`` means the same as ``anyOf``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dgemma_core.structured.tool_schema.json_values import common, found, may_fit
from dgemma_core.structured.tool_schema.keywords import Flat
from dgemma_core.structured.tool_schema.merging import common_types

_DEEPEST = 3  # levels of properties in properties


class BranchComparison:
    """Compares flat schemas. A positive answer is certain, a negative one is not.

    Args:
        expand: a schema and its path to flat schemas.
        inline: a flat schema and its path to flat schemas without ``$ref``.
    """

    def __init__(self, expand: Callable[[Any, str], list[Flat]], inline: Callable[[Flat, str], list[Flat]]) -> None:
        self._expand = expand
        self._inline = inline
        self._depth = 0

    def disjoint(self, a: Flat, b: Flat, path: str) -> bool:
        """Whether it is certain that no value fits both."""
        if "$ref" in a or "$ref" in b:
            pairs = [(x, y) for x in self._inline(a, path) for y in self._inline(b, path)]
            return all(self.disjoint(x, y, path) for x, y in pairs)
        if "type" in a and "type" in b and not common_types(a["type"], b["type"]):
            return True
        for one, other in ((a, b), (b, a)):
            if "enum" in one:
                shared = common(one["enum"], other["enum"]) if "enum" in other else one["enum"]
                return not any(may_fit(value, one) and may_fit(value, other) for value in shared)
        if a.get("type") != ["object"] or b.get("type") != ["object"]:
            return False
        return _requires_forbidden(a, b) or _requires_forbidden(b, a) or self._property_differs(a, b, path)

    def _property_differs(self, a: Flat, b: Flat, path: str) -> bool:
        """Whether a required property cannot have the same value in both."""
        if self._depth >= _DEEPEST:
            return False
        self._depth += 1
        try:
            return self._any_property_differs(a, b, path)
        finally:
            self._depth -= 1

    def _any_property_differs(self, a: Flat, b: Flat, path: str) -> bool:
        ours, theirs = a.get("properties", {}), b.get("properties", {})
        for name in sorted({*a.get("required", []), *b.get("required", [])} & ours.keys() & theirs.keys()):
            if ours[name] is theirs[name]:
                continue
            where = f"{path}/properties/{name}"
            pairs = ((x, y) for x in self._expand(ours[name], where) for y in self._expand(theirs[name], where))
            if all(self.disjoint(x, y, where) for x, y in pairs):
                return True
        return False


def _requires_forbidden(a: Flat, b: Flat) -> bool:
    """Whether ``b`` requires a property that ``a`` forbids."""
    closed = a.get("additionalProperties", True) is False
    patterns = a.get("patternProperties", {})
    return closed and any(
        name not in a.get("properties", {}) and not any(found(pattern, name) for pattern in patterns)
        for name in b.get("required", [])
    )
