"""Checks of the settings of decisions, which both adapters take."""

from __future__ import annotations

from typing import Any, TypeGuard

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.setting_table import is_number


def check_probability(name: str, value: Any) -> float:
    """A probability, with a number of numpy or torch as Python's own.

    Raises:
        ValueError: naming the setting, because its value is no probability.
    """
    number = plain(value)
    if not is_probability(number):
        raise ValueError(f"{name}={value!r}: must be a probability from 0 to 1")
    return number


def is_probability(value: object) -> TypeGuard[float]:
    """Whether a value is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def check_calibration(calibration: Any) -> None:
    """Raise a ``ValueError`` unless the value is a ``Calibration`` or None."""
    if calibration is not None and not isinstance(calibration, Calibration):
        raise ValueError(f"calibration={calibration!r}: must be what dgemma_core.fit_calibration returns, or None")
