"""Sampling settings of one request. They are checked when made, so that a mistake never reaches the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dgemma_core.api.grammar import Grammar
from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.setting_table import check_settings, documented, is_number, setting, settings_of
from dgemma_core.api.surrogates import without_surrogates

Decoding = Literal["diffusion", "verified", "typewriter"]
CAUSAL_SETTINGS = ("top_k", "top_p", "min_p", "logprobs", "top_logprobs")
DIFFUSION_SETTINGS = (
    "max_denoising_steps",
    "entropy_bound",
    "t_min",
    "t_max",
    "stability_threshold",
    "confidence_threshold",
    "canvas_length",
    "stop_at_eos",
)


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
    decoding: Decoding | None = setting(
        None,
        "How the answer is written: `diffusion` denoises canvas after canvas, `typewriter` predicts one token a pass, "
        "`verified` gives the same text in fewer passes, because it verifies drafts. `None` is the way that the given "
        "settings belong to, otherwise that of the checkpoint.",
    )
    temperature: float | None = setting(
        None,
        "0, the default, takes the likeliest token; otherwise the logits that tokens are drawn from are divided by it. "
        "With `diffusion`, 0 makes answers repeatable (`seed=0` unless a seed is given), values up to 0.8 keep the "
        "checkpoint's own schedule, and higher ones set `t_max=temperature, t_min=temperature / 2`.",
        low=0,
    )
    top_k: int | None = setting(
        None, "Only this many of the likeliest tokens may be drawn. Not with `diffusion`.", low=1, unit="tokens"
    )
    top_p: float | None = setting(
        None,
        "Only the likeliest tokens that together reach this probability may be drawn; at most 1. Not with `diffusion`.",
        above=0,
        most=1,
    )
    min_p: float | None = setting(
        None,
        "Only tokens with at least this share of the likeliest token's probability may be drawn; at most 1. Not with "
        "`diffusion`.",
        low=0,
        most=1,
    )
    logprobs: bool = setting(False, "Return the log-probability of every token. Not with `diffusion`.")
    top_logprobs: int = setting(
        0, "Alternatives per token to return with `logprobs`, the likeliest ones.", low=0, most=20, unit="tokens"
    )
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
        if self.top_logprobs and not self.logprobs:
            raise ValueError(f"top_logprobs={self.top_logprobs!r}: set logprobs=True with it")
        self._check_decoding()
        if self.temperature is not None and (bound := self._given(("t_min", "t_max"))):
            raise ValueError(
                f"temperature={self.temperature!r} and {bound}={getattr(self, bound)!r}: give temperature, or t_min "
                "and t_max, not both"
            )
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

    def decoding_by(self, default: Decoding) -> Decoding:
        """The way of decoding: :attr:`decoding`, or the one that a given setting belongs to, or ``default``.

        Args:
            default: of the checkpoint.
        """
        if self.decoding is not None:
            return self.decoding
        if self._given(DIFFUSION_SETTINGS):
            return "diffusion"
        if self.drafts and default == "typewriter":
            return "verified"
        return "verified" if default == "diffusion" and self._given(CAUSAL_SETTINGS) else default

    def _given(self, names: tuple[str, ...]) -> str | None:
        """The first of some settings that has been given, or None."""
        known = settings_of(type(self))
        return next((name for name in names if getattr(self, name) != known[name].default), None)

    def _check_decoding(self) -> None:
        """Check that all settings belong to one way of decoding."""
        denoising, causal = self._given(DIFFUSION_SETTINGS), self._given(CAUSAL_SETTINGS)
        foreign = causal if self.decoding == "diffusion" else denoising
        if self.decoding is not None and foreign is not None:
            other = "'verified' or 'typewriter'" if self.decoding == "diffusion" else "'diffusion'"
            raise ValueError(
                f"{foreign}={getattr(self, foreign)!r} has no meaning with decoding={self.decoding!r}: leave it out, "
                f"or set decoding={other}"
            )
        if self.decoding == "typewriter" and self.drafts:
            raise ValueError(
                "drafts=True has no meaning with decoding='typewriter', which drafts nothing: leave it out, or set "
                "decoding='verified'"
            )
        if denoising is not None and causal is not None:
            raise ValueError(
                f"{denoising}={getattr(self, denoising)!r} belongs to decoding='diffusion', "
                f"{causal}={getattr(self, causal)!r} to 'verified' and 'typewriter': leave one of them out"
            )

    def check_denoising(self, what: str) -> None:
        """Check that the settings can be used where canvases are always denoised.

        Args:
            what: is denoised, for the error.

        Raises:
            ValueError: naming the setting and its value.
        """
        given = self._given(CAUSAL_SETTINGS)
        if self.decoding not in (None, "diffusion"):
            given = "decoding"
        if given is not None:
            raise ValueError(f"{given}={getattr(self, given)!r}: {what} is always denoised, so leave it out")

    @classmethod
    def names(cls) -> frozenset[str]:
        """Names of all settings, for callers that accept them as keyword arguments."""
        return frozenset(settings_of(cls))
