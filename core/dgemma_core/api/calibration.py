"""Temperature scaling of decision probabilities (https://arxiv.org/abs/1706.04599), fitted on labelled examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dgemma_core.api.json_form import JsonForm

BINS = 10
_LOW, _HIGH, _ROUNDS = math.log(0.05), math.log(20.0), 60


@dataclass(frozen=True)
class Calibration(JsonForm):
    """What :func:`fit_calibration` found; give it to ``Engine.decide(calibration=...)``.

    Attributes:
        temperature: log-probabilities are divided by it: above 1 softens, below 1 sharpens.
        error_before: expected calibration error on the examples without it, 0 to 1.
        error_after: and with it.
        examples: how many it was fitted on.
    """

    temperature: float
    error_before: float
    error_after: float
    examples: int

    def apply(self, probabilities: Mapping[str, float]) -> dict[str, float]:
        """Scaled probabilities, summing to 1."""
        return dict(zip(probabilities, _scaled(list(probabilities.values()), self.temperature), strict=True))


def fit_calibration(probabilities: Sequence[Mapping[str, float]], right: Sequence[str]) -> Calibration:
    """Fit a temperature that makes the right options likeliest (least mean negative log-likelihood).

    Args:
        probabilities: ``Answer.probabilities`` of uncalibrated answers.
        right: the option that is right, for each of them.

    Raises:
        ValueError: no examples, different lengths, or an option that is not among the probabilities.
    """
    if not probabilities or len(probabilities) != len(right):
        raise ValueError(f"{len(probabilities)} answers and {len(right)} right options: give one of each, at least one")
    for known, name in zip(probabilities, right, strict=True):
        if name not in known:
            raise ValueError(f"right option {name!r} is not one of {list(known)}")
    rows = [list(p.values()) for p in probabilities]
    places = [list(p).index(name) for p, name in zip(probabilities, right, strict=True)]

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return -sum(math.log(max(_scaled(row, temperature)[at], 1e-12)) for row, at in zip(rows, places, strict=True))

    # The loss has one minimum in the temperature, so thirds of the interval can be cut away.
    low, high = _LOW, _HIGH
    for _ in range(_ROUNDS):
        third = (high - low) / 3
        if loss(low + third) < loss(high - third):
            high -= third
        else:
            low += third
    temperature = math.exp((low + high) / 2)
    scaled = [_scaled(row, temperature) for row in rows]
    return Calibration(temperature, expected_error(rows, places), expected_error(scaled, places), len(rows))


def expected_error(rows: Sequence[Sequence[float]], right: Sequence[int]) -> float:
    """Expected calibration error: confidence against accuracy in ten bins of confidence, weighted by their size.

    Args:
        rows: probabilities of the options, per answer.
        right: index of the right option, per answer.
    """
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for row, at in zip(rows, right, strict=True):
        confidence = max(row)
        bins[min(int(confidence * BINS), BINS - 1)].append((confidence, row[at] == confidence))
    gaps = (abs(sum(c for c, _ in part) - sum(ok for _, ok in part)) for part in bins if part)
    return sum(gaps) / len(rows)


def _scaled(row: Sequence[float], temperature: float) -> list[float]:
    powers = [math.log(max(p, 1e-12)) / temperature for p in row]
    top = max(powers)
    weights = [math.exp(power - top) for power in powers]
    return [weight / sum(weights) for weight in weights]
