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
    """A fitted temperature, for ``Engine.decide(calibration=...)``.

    Attributes:
        temperature: divisor of the log-probabilities; above 1 it evens them out, below 1 it sharpens them.
        error_before: expected calibration error on the examples before scaling, 0 to 1.
        error_after: the same error after scaling.
        examples: number of examples.
    """

    temperature: float
    error_before: float
    error_after: float
    examples: int

    def apply(self, probabilities: Mapping[str, float]) -> dict[str, float]:
        """The probabilities after scaling; they sum to 1."""
        return dict(zip(probabilities, _scaled(list(probabilities.values()), self.temperature), strict=True))


def fit_calibration(probabilities: Sequence[Mapping[str, float]], right: Sequence[str]) -> Calibration:
    """Fit the temperature with the least mean negative log-likelihood of the right options.

    Args:
        probabilities: ``Answer.probabilities`` of uncalibrated answers.
        right: name of the right option of each answer.

    Raises:
        ValueError: no examples, different lengths, or an option that is not among the probabilities.
    """
    if not probabilities or len(probabilities) != len(right):
        raise ValueError(
            f"{len(probabilities)} answers and {len(right)} right options: give one right option per answer, and at "
            "least one answer"
        )
    for known, name in zip(probabilities, right, strict=True):
        if name not in known:
            raise ValueError(f"right option {name!r} is not one of {list(known)}")
    rows = [list(p.values()) for p in probabilities]
    places = [list(p).index(name) for p, name in zip(probabilities, right, strict=True)]

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return -sum(math.log(max(_scaled(row, temperature)[at], 1e-12)) for row, at in zip(rows, places, strict=True))

    # Ternary search: the loss has a single minimum in the temperature.
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
    """Expected calibration error (https://arxiv.org/abs/1706.04599), from 0 to 1.

    Answers are sorted into ten bins of confidence. The error is the mean gap between confidence and accuracy in a bin,
    weighted by the bin's size.

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
