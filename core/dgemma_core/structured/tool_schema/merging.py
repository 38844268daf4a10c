"""Two flat schemas as one that both fit: the merge for ``allOf``."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from dgemma_core.structured.tool_schema.json_values import TYPES, common, found
from dgemma_core.structured.tool_schema.keywords import BOUNDS, COUNTS, Flat, SchemaError

_LOWER_LIMITS = frozenset({"minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"})


def merge(a: Flat, b: Flat) -> Flat | None:
    """A flat schema for the values that fit both, or None if no value does.

    Raises:
        SchemaError: two values of ``multipleOf``, neither a multiple of the other.
    """
    out = {**a, **b}
    for key in a.keys() & b.keys():
        if key in COUNTS or key in BOUNDS:
            out[key] = max(a[key], b[key]) if key in _LOWER_LIMITS else min(a[key], b[key])
    if "type" in a and "type" in b:
        out["type"] = common_types(a["type"], b["type"])
    if "enum" in a and "enum" in b:
        out["enum"] = common(a["enum"], b["enum"])
    if out.get("type") == [] or out.get("enum") == []:
        return None
    if "multipleOf" in a and "multipleOf" in b:
        out["multipleOf"] = _common_multiple(a["multipleOf"], b["multipleOf"])
    for key in ("patterns", "formats", "required"):
        if key in a and key in b:
            out[key] = sorted({*a[key], *b[key]})
    _merge_objects(a, b, out)
    _merge_arrays(a, b, out)
    return out


def common_types(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """The types in both lists; ``"integer"`` is a part of ``"number"``."""

    def covered(kind: str, types: Sequence[str]) -> bool:
        return kind in types or (kind == "integer" and "number" in types)

    return [kind for kind in TYPES if covered(kind, a) and covered(kind, b) and (kind in a or kind in b)]


def _common_multiple(a: Any, b: Any) -> Any:
    low, high = sorted((a, b))
    if (Fraction(str(high)) / Fraction(str(low))).denominator != 1:
        raise SchemaError(f"'multipleOf' of {a} and {b} at once cannot be enforced")
    return high


def own_schema(flat: Flat, name: str) -> Any:
    """What a flat schema says of a property under its name, or as one without a declaration; patterns aside."""
    if name in flat.get("properties", {}):
        return flat["properties"][name]
    if any(found(pattern, name) for pattern in flat.get("patternProperties", {})):
        return True
    return flat.get("additionalProperties", True)


def both(a: Any, b: Any) -> Any:
    """A schema for the values that fit two schemas, either of which may be a boolean."""
    if a is True or b is True:
        return b if a is True else a
    return False if a is False or b is False else {"allOf": [a, b]}


def _merge_objects(a: Flat, b: Flat, out: Flat) -> None:
    if "additionalProperties" in a and "additionalProperties" in b:
        out["additionalProperties"] = both(a["additionalProperties"], b["additionalProperties"])
    if "properties" in a or "properties" in b:
        ours, theirs = a.get("properties", {}), b.get("properties", {})
        names = dict.fromkeys((*ours, *theirs))
        out["properties"] = {name: both(own_schema(a, name), own_schema(b, name)) for name in names}
    if "patternProperties" in a or "patternProperties" in b:
        ours, theirs = a.get("patternProperties", {}), b.get("patternProperties", {})
        # The other's schema of undeclared keys may ask too much of some; that leaves fewer keys, not wrong ones.
        out["patternProperties"] = {
            pattern: both(
                ours.get(pattern, a.get("additionalProperties", True)),
                theirs.get(pattern, b.get("additionalProperties", True)),
            )
            for pattern in dict.fromkeys((*ours, *theirs))
        }
    if "propertyNames" in a and "propertyNames" in b:
        out["propertyNames"] = both(a["propertyNames"], b["propertyNames"])


def _merge_arrays(a: Flat, b: Flat, out: Flat) -> None:
    if "items" in a and "items" in b:
        out["items"] = both(a["items"], b["items"])
    ours, theirs = a.get("prefixItems", []), b.get("prefixItems", [])
    if ours or theirs:
        length = max(len(ours), len(theirs))
        padded = [
            [*heads, *[flat.get("items", True)] * (length - len(heads))] for heads, flat in ((ours, a), (theirs, b))
        ]
        out["prefixItems"] = [both(x, y) for x, y in zip(*padded, strict=True)]
