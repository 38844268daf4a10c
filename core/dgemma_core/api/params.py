"""What one request asks of the denoising loop. Validated when made, so a typo never reaches the worker."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from dgemma_core.api.grammar import Grammar
from dgemma_core.api.json_form import JsonForm

_LARGEST_SEED = 2**64 - 1  # of torch's generators


def check_timeout(timeout: object) -> None:
    """Raises a ``ValueError`` unless ``timeout`` is a positive, finite number of seconds or None."""
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (number and 0 < timeout < math.inf):  # type: ignore[operator]
        raise ValueError(f"timeout={timeout!r}: must be a positive number of seconds, or None for no limit")


@dataclass(frozen=True)
class SamplingParams(JsonForm):
    """Per-request settings; ``None`` means the checkpoint's own default (its ``generation_config.json``).

    Args:
        max_new_tokens: exact upper bound on the answer's tokens (not rounded up to canvases).
        seed: seed of this request's own random generator; ``None`` draws a fresh one.
        stop: strings that end the answer; they are not part of it. A single string is taken as one stop.
        max_denoising_steps: cap on denoising steps per canvas.
        entropy_bound: nats; positions are accepted while the entropy of the surer ones sums to no more than this.
        t_min: temperature at the last denoising step; above 0, as logits are divided by it.
        t_max: temperature at the first denoising step; not below ``t_min``.
        stability_threshold: further steps the argmax canvas must stay the same.
        confidence_threshold: nats; mean entropy of the canvas below which it may stop.
        canvas_length: positions denoised together; at most the checkpoint's.
        stop_at_eos: the answer-aware canvas: positions after the answer's end do not delay convergence and are not
            computed again once that end is stable. ``False`` is the reference rule.
        drafts: emit a ``DraftEvent`` after every denoising step.
        grammar: what the answer must look like; it then always does. Not together with ``stop``.

    Raises:
        ValueError: naming the field, its value and what is accepted.
    """

    max_new_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_denoising_steps: int | None = None
    entropy_bound: float | None = None
    t_min: float | None = None
    t_max: float | None = None
    stability_threshold: int | None = None
    confidence_threshold: float | None = None
    canvas_length: int | None = None
    stop_at_eos: bool = True
    drafts: bool = False
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        try:
            stop = (self.stop,) if isinstance(self.stop, str) else tuple(() if self.stop is None else self.stop)
        except TypeError:
            raise ValueError(f"stop={self.stop!r}: must be strings") from None
        for text in stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop={list(stop)!r}: every stop must be a non-empty string")
        object.__setattr__(self, "stop", stop)
        _positive_int("max_new_tokens", self.max_new_tokens)
        _positive_int("max_denoising_steps", self.max_denoising_steps)
        _positive_int("canvas_length", self.canvas_length)
        _int_at_least("seed", self.seed, 0)
        if self.seed is not None and self.seed > _LARGEST_SEED:
            raise ValueError(f"seed={self.seed}: must be below 2**64")
        _int_at_least("stability_threshold", self.stability_threshold, 0)
        _number("entropy_bound", self.entropy_bound, positive=True)
        _number("confidence_threshold", self.confidence_threshold, positive=True)
        _number("t_min", self.t_min, positive=True)
        _number("t_max", self.t_max, positive=True)
        if self.t_min is not None and self.t_max is not None and self.t_max < self.t_min:
            raise ValueError(f"t_max={self.t_max!r} is below t_min={self.t_min!r}; the temperature falls from t_max")
        if self.grammar is not None and not isinstance(self.grammar, Grammar):
            raise ValueError(f"grammar={self.grammar!r}: must be a Grammar, such as Grammar.json_schema({{...}})")
        if self.grammar is not None and self.stop:
            raise ValueError(f"stop={list(self.stop)!r}: a stop string would cut a text that must fit its grammar")
        for name in ("stop_at_eos", "drafts"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: must be True or False")

    @classmethod
    def names(cls) -> frozenset[str]:
        """Names of all settings, for callers that accept them as keyword arguments."""
        return frozenset(field.name for field in fields(cls))


def _positive_int(name: str, value: Any) -> None:
    _int_at_least(name, value, 1)


def _int_at_least(name: str, value: Any, low: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
        raise ValueError(f"{name}={value!r}: must be an integer of at least {low}, or None for the default")


def _number(name: str, value: Any, positive: bool = False) -> None:
    if value is None:
        return
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not good or (positive and value == 0):
        raise ValueError(f"{name}={value!r}: must be a {'positive' if positive else 'non-negative'} number, or None")
