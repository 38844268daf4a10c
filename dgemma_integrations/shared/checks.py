"""Checks of the settings of decisions, which both adapters take."""

from __future__ import annotations

from typing import Any

from dgemma_core.api.calibration import Calibration


def check_probability(name: str, value: Any) -> None:
    """Raise a ``ValueError`` that names the setting unless its value is a probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r}: must be a probability from 0 to 1")


def check_calibration(calibration: Any) -> None:
    """Raise a ``ValueError`` unless the value is a ``Calibration`` or None."""
    if calibration is not None and not isinstance(calibration, Calibration):
        raise ValueError(f"calibration={calibration!r}: must be what dgemma_core.fit_calibration returns, or None")
