"""JSON values as JSON Schema compares them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf") and value == value
    )


def type_of(value: Any) -> str:
    """The JSON type of a value; integers are of type ``"number"``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def same(a: Any, b: Any) -> bool:
    """Equality as JSON Schema defines it: 1 and 1.0 are the same number, ``true`` is not a number."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def may_fit(value: Any, flat: Mapping[str, Any]) -> bool:
    """Whether a value fits a flat schema; arrays and objects are checked by ``type`` and ``enum`` only."""
    kind = type_of(value)
    if kind == "number" and not is_number(value):
        return False
    types = flat.get("type", TYPES)
    if kind not in types and not (kind == "number" and "integer" in types and value == int(value)):
        return False
    if "enum" in flat and not any(same(value, other) for other in flat["enum"]):
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
