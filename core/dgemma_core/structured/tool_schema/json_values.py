"""JSON values as JSON Schema compares them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from dgemma_core.api.formats import FORMATS
from dgemma_core.api.patterns import whole_regex
from dgemma_core.structured.tool_schema.lark_checks import takes_text

_MOST_INTEGERS = 64
_SHORT: dict[str, list[Any]] = {"null": [None], "boolean": [False, True]}
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


def key_of(value: Any) -> Hashable:
    """A key that two values share if JSON Schema calls them equal: 1 and 1.0 do, 1 and ``true`` do not."""
    if isinstance(value, list):
        return ("array", *map(key_of, value))
    if isinstance(value, Mapping):
        return ("object", frozenset((name, key_of(item)) for name, item in value.items()))
    kind = type_of(value)
    return (kind, repr(value) if kind == "object" else value)  # Values that JSON has no form for are refused later.


def same(a: Any, b: Any) -> bool:
    """Equality as JSON Schema defines it."""
    return key_of(a) == key_of(b)


def common(some: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """The values of ``some`` that are also in ``others``."""
    known = set(map(key_of, others))
    return [value for value in some if key_of(value) in known]


def listed(flats: Sequence[Mapping[str, Any]]) -> list[Any] | None:
    """The different values that fit one of some flat schemas; None if they are not a short list.

    Raises:
        ValueError: a pattern that cannot be read.
    """
    found_values: dict[Hashable, Any] = {}
    for flat in flats:
        values = flat.get("enum")
        if values is None:
            values = []
            for kind in flat.get("type", TYPES):
                if kind not in ("null", "boolean", "integer"):
                    return None
                some = _SHORT.get(kind) or _integers(flat)
                if some is None:
                    return None
                values += some
        found_values |= {key_of(value): value for value in values if may_fit(value, flat)}
    return list(found_values.values())


def _integers(flat: Mapping[str, Any]) -> list[int] | None:
    low = max((flat[key] for key in ("minimum", "exclusiveMinimum") if key in flat), default=None)
    high = min((flat[key] for key in ("maximum", "exclusiveMaximum") if key in flat), default=None)
    if low is None or high is None or high - low > _MOST_INTEGERS:
        return None
    return list(range(int(low) - 1, int(high) + 2))


def may_fit(value: Any, flat: Mapping[str, Any]) -> bool:
    """Whether a value fits a flat schema, ``enum`` aside; arrays and objects are checked by ``type`` only.

    Raises:
        ValueError: a pattern that cannot be read.
    """
    kind = type_of(value)
    if kind == "number" and not is_number(value):
        return False
    types = flat.get("type", TYPES)
    if kind not in types and not (kind == "number" and "integer" in types and value == int(value)):
        return False
    if kind == "string":
        fits = flat.get("minLength", 0) <= len(value) <= flat.get("maxLength", len(value))
        return (
            fits
            and all(found(pattern, value) for pattern in flat.get("patterns", []))
            and all(_has_format(form, value) for form in flat.get("formats", []))
        )
    if kind == "number":
        step = Fraction(str(flat.get("multipleOf", 0)))
        return (
            flat.get("minimum", value) <= value <= flat.get("maximum", value)
            and not value <= flat.get("exclusiveMinimum", value - 1)
            and not value >= flat.get("exclusiveMaximum", value + 1)
            and (step == 0 or Fraction(str(value)) % step == 0)
        )
    return True


def _has_format(name: str, text: str) -> bool:
    form = FORMATS[name]
    return bool(re.fullmatch(form.pattern, text)) and (form.longest is None or len(text) <= form.longest)


def found(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text."""
    try:
        return bool(re.search(pattern, text))
    except re.error:  # JavaScript's dialect
        return takes_text(f"/{whole_regex(pattern)}/", text)
