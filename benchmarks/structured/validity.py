"""Whether a text is a valid answer to a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import jsonschema


def _decimal(number: str) -> Decimal | float:
    """A number as it is written. If its exponent is too large for a decimal, a float."""
    try:
        return Decimal(number)
    except InvalidOperation:
        return float(number)


def _multiple_of(_validator: Any, divisor: Any, value: Any, _schema: Any) -> Iterator[jsonschema.ValidationError]:
    """JSON Schema's ``multipleOf``, computed in integers, because a decimal's remainder has limited digits."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return
    (_, digits, low), (_, of, of_low) = (Decimal(n).as_tuple() for n in (value, divisor))
    mantissa, divides = (int("".join(map(str, ds))) for ds in (digits, of))
    shift = int(low) - int(of_low)
    rest = mantissa * pow(10, shift, divides) % divides if shift >= 0 else mantissa % (divides * 10**-shift)
    if rest:
        yield jsonschema.ValidationError(f"{value} is not a multiple of {divisor}")


def why_invalid(schema: Any, text: str) -> str:
    """Why a text is not a valid answer; an empty string if it is.

    Numbers are read as decimals: in binary floating point 9.2 is no multiple of 0.01.
    """
    schema = json.loads(json.dumps(schema), parse_float=_decimal)
    try:
        value = json.loads(text, parse_float=_decimal)
    except json.JSONDecodeError as error:
        return f"no JSON: {error}"
    kind = jsonschema.validators.extend(jsonschema.validators.validator_for(schema), {"multipleOf": _multiple_of})
    wrong = next(kind(schema).iter_errors(value), None)
    return "" if wrong is None else f"{wrong.validator}: {wrong.message[:100]}"
