"""Sampling settings of one request. They are checked when made, so that a mistake never reaches the worker."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_core.api.grammar import Grammar
from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.setting_table import check_settings, documented, is_number, setting, settings_of
from dgemma_core.api.surrogates import without_surrogates


def check_timeout(timeout: object) -> float | None:
    """A timeout in seconds, checked. A number of numpy or torch becomes Python's own.

    Raises:
        ValueError: neither a positive, finite number nor None.
    """
    timeout = plain(timeout)
    if timeout is None or (is_number(timeout) and timeout > 0):
        return timeout
    raise ValueError(f"timeout={timeout!r}: must be a positive number of seconds, or None for no limit")


@documented
@dataclass(frozen=True)
class SamplingParams(JsonForm):
    """Per-request settings; ``None`` means the checkpoint's own default (its ``generation_config.json``).

    A bad value is a ``ValueError`` that names the field, its value and what is accepted.
    """

    max_new_tokens: int | None = setting(None, "Exact upper bound on the answer's tokens.", low=1, unit="tokens")
    seed: int | None = setting(
        None,
        "Seed of the request's own random generator: equal seeds and prompts give equal answers, no matter what else "
        "runs; `None` draws a fresh seed.",
        low=0,
        below=2**64,  # The limit of torch's generators.
    )
    stop: tuple[str, ...] = setting((), "One or more strings that end the answer and are not part of it.")
    max_denoising_steps: int | None = setting(None, "Cap on denoising steps per canvas.", low=1, unit="steps")
    entropy_bound: float | None = setting(
        None,
        "A step accepts a position if the entropies of all surer positions sum to at most this.",
        above=0,
        unit="nats",
    )
    t_min: float | None = setting(None, "Temperature at the last denoising step.", above=0)
    t_max: float | None = setting(None, "Temperature at the first denoising step; not below `t_min`.", above=0)
    stability_threshold: int | None = setting(
        None, "Further steps that must leave the most likely canvas unchanged before it is done.", low=0, unit="steps"
    )
    confidence_threshold: float | None = setting(
        None, "Mean entropy per position below which a canvas may be done.", above=0, unit="nats"
    )
    canvas_length: int | None = setting(
        None, "Positions denoised together; at most the checkpoint's canvas length.", low=1, unit="tokens"
    )
    stop_at_eos: bool = setting(
        True,
        "Positions after the answer's end do not delay the canvas, and are no longer computed once the end is stable; "
        "`False` is the reference rule.",
    )
    drafts: bool = setting(False, "Report the canvas as text after every denoising step.")
    grammar: Grammar | None = setting(
        None, "A grammar that the answer always fits. Not together with `stop`.", per_call=True
    )

    def __post_init__(self) -> None:
        try:
            stop = (self.stop,) if isinstance(self.stop, str) else tuple(() if self.stop is None else self.stop)
        except TypeError:
            raise ValueError(f"stop={self.stop!r}: must be strings") from None
        for text in stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop={list(stop)!r}: every stop must be a non-empty string")
        object.__setattr__(self, "stop", without_surrogates(stop))
        check_settings(self)
        if self.t_min is not None and self.t_max is not None and self.t_max < self.t_min:
            raise ValueError(
                f"t_max={self.t_max!r} is below t_min={self.t_min!r}: the temperature falls from t_max to t_min, so "
                "raise t_max or lower t_min"
            )
        if self.grammar is not None and not isinstance(self.grammar, Grammar):
            raise ValueError(f"grammar={self.grammar!r}: must be a Grammar, such as Grammar.json_schema({{...}})")
        if self.grammar is not None and self.stop:
            raise ValueError(
                f"stop={list(self.stop)!r}: a stop string would cut a text that must fit its grammar; leave out stop "
                "or grammar"
            )

    @classmethod
    def names(cls) -> frozenset[str]:
        """Names of all settings, for callers that accept them as keyword arguments."""
        return frozenset(settings_of(cls))
