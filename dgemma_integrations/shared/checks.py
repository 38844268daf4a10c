"""Checks of values that both adapters take for decisions."""

from __future__ import annotations

from typing import Any

from dgemma_core.api.calibration import Calibration


def check_probability(name: str, value: Any) -> None:
    """Raises a ``ValueError`` that names a setting unless its value is a probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r}: must be a probability from 0 to 1")


def check_calibration(calibration: Any) -> None:
    """Raises a ``ValueError`` for anything that is not a calibration."""
    if calibration is not None and not isinstance(calibration, Calibration):
        raise ValueError(f"calibration={calibration!r}: must be what dgemma_core.fit_calibration returns, or None")
