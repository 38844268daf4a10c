"""Bounds of numbers that llguidance cannot enforce, replaced by narrower ones.

It writes bounds with the integers of 64 bits, and with few digits after the point. Bounds like ``2**63`` or ``1e308``
are common: they are what other languages can hold. And it takes 3 for a number above 3 and below 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

# The lowest and highest bounds of integers, the highest of other numbers, and the smallest one that is not zero.
# The lowest is one that a float holds.
_LOWEST, _HIGHEST, _NUMBER, _SMALLEST = 2**63 - 1024, 2**63 - 1, 2**62, 1e-20
_DIGITS = 14  # It rounds bounds with more.
_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")


def within_reach(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with bounds that can be enforced. What fits them fits its own bounds.

    Bounds beyond the largest ones that no narrower bound can replace stay.

    Args:
        schema: a schema; ``type`` may be a list, and bounds may be the booleans of draft 4.
    """
    bounds = {key: schema[key] for key in (*_LOWER, *_UPPER) if _is_number(schema.get(key))}
    if not bounds or schema.keys() & {"enum", "const"}:
        return dict(schema)
    kinds = schema.get("type", "number")
    whole = "number" not in (kinds if isinstance(kinds, list) else [kinds])
    out = dict(schema)
    for key, bound in bounds.items():
        sign = 1 if key in _LOWER else -1
        most = _NUMBER if not whole else _LOWEST if sign > 0 else _HIGHEST
        narrower = _narrowed(bound * sign, most, whole)
        ends = [bounds[other] * sign for other in bounds if (other in _LOWER) != (sign > 0)]
        if narrower is None and not whole and key.startswith("exclusive") and bound == int(bound) and ends:
            lower = bound * sign
            if lower >= 0 and min(ends) < lower + 1:
                narrower = lower + 10.0 ** (len(str(int(lower))) - _DIGITS) if lower else _SMALLEST
        if narrower is not None:
            del out[key]
            plain = (_LOWER if sign > 0 else _UPPER)[0]
            values = [narrower * sign, *(value for value in [out.get(plain)] if _is_number(value))]
            out[plain] = max(values) if sign > 0 else min(values)
    return out


def _narrowed(lower: float, most: int, whole: bool) -> float | None:
    """A higher lower bound instead of one out of reach; None if the bound is fine, or nothing is left above it."""
    if lower < -most:
        return -most
    if not whole and 0 < lower < _SMALLEST:
        return _SMALLEST
    return 0 if not whole and -_SMALLEST < lower < 0 else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
