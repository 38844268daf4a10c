"""Settings of model objects as Pydantic fields.

Generated from ``LoadSpec`` and ``SamplingParams`` by ``make generate``; do not edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from pydantic import BaseModel, Field


class LoadOptions(TypedDict, total=False):
    """The keyword arguments of ``LoadFields``."""

    model: str
    revision: str | None
    device: str
    dtype: str
    quantization: str | None
    max_context: int | None
    max_batch_tokens: int | None
    max_queue: int
    prefix_cache_bytes: int
    threads: int | str


class LoadFields(BaseModel):
    """Which weights to load, where and how. ``None`` means the default."""

    model: str = Field(
        default="embedded",
        description=(
            '`"embedded"` (the small checkpoint inside the package), a Hub id such as '
            '`"google/diffusiongemma-26B-A4B-it"`, or a local folder with `config.json` and safetensors.'
        ),
    )
    revision: str | None = Field(default=None, description="Hub branch, tag or commit; only for Hub ids.")
    device: str = Field(
        default="auto",
        description='`"auto"` (cuda, else mps, else cpu) or a torch device such as `"cuda:1"`.',
    )
    dtype: str = Field(
        default="auto",
        description=(
            'Number format of weights; `"auto"` is bfloat16 on accelerators and for large models, else float32. One '
            'of `"auto"`, `"float32"`, `"bfloat16"`, `"float16"`.'
        ),
    )
    quantization: str | None = Field(
        default=None,
        description=(
            "How the linear layers are packed (bitsandbytes, on CUDA); `None` leaves them as they are. One of "
            '`"int8"`, `"nf4"`.'
        ),
    )
    max_context: int | None = Field(
        default=None,
        description="Most tokens of prompt plus answer; `None` means the checkpoint's own limit.",
    )
    max_batch_tokens: int | None = Field(
        default=None,
        description=(
            "Most tokens (prompt chunks and canvas positions) in one forward pass, over all requests; `None` picks "
            "by device."
        ),
    )
    max_queue: int = Field(
        default=4096,
        description="Most requests that may wait; one more is refused with `QueueFullError`.",
    )
    prefix_cache_bytes: int = Field(
        default=268435456,
        description="Bytes of keys and values kept for reuse across requests; 0 turns reuse off.",
    )
    threads: int | str = Field(
        default="auto",
        description=(
            'Threads of a step on a CPU; `"auto"` measures a step when the weights are loaded, and takes more '
            "threads only if they are faster."
        ),
    )


class SamplingFields(BaseModel):
    """Settings of an answer. ``None`` means the checkpoint's own default."""

    max_tokens: int | None = Field(default=None, description="Exact upper bound on the answer's tokens.")
    seed: int | None = Field(
        default=None,
        description=(
            "Seed of the request's own random generator: equal seeds and prompts give equal answers, no matter what "
            "else runs; `None` draws a fresh seed."
        ),
    )
    stop: Sequence[str] | None = Field(
        default=None,
        description="One or more strings that end the answer and are not part of it.",
    )
    max_denoising_steps: int | None = Field(default=None, description="Cap on denoising steps per canvas.")
    entropy_bound: float | None = Field(
        default=None,
        description=(
            "A step accepts a position if the entropies of all surer positions sum to at most this. Unit: nats."
        ),
    )
    t_min: float | None = Field(default=None, description="Temperature at the last denoising step.")
    t_max: float | None = Field(default=None, description="Temperature at the first denoising step; not below `t_min`.")
    stability_threshold: int | None = Field(
        default=None,
        description="Further steps that must leave the most likely canvas unchanged before it is done.",
    )
    confidence_threshold: float | None = Field(
        default=None,
        description="Mean entropy per position below which a canvas may be done. Unit: nats.",
    )
    canvas_length: int | None = Field(
        default=None,
        description="Positions denoised together; at most the checkpoint's canvas length. Unit: tokens.",
    )
    stop_at_eos: bool = Field(
        default=True,
        description=(
            "Positions after the answer's end do not delay the canvas, and are no longer computed once the end is "
            "stable; `False` is the reference rule."
        ),
    )
    decoding: str | None = Field(
        default=None,
        description=(
            "How the answer is written: `diffusion` denoises canvas after canvas, `typewriter` predicts one token a "
            "pass, `verified` gives the same text in fewer passes, because it verifies drafts. `None` is the way "
            'that the given settings belong to, otherwise that of the checkpoint. One of `"diffusion"`, '
            '`"verified"`, `"typewriter"`.'
        ),
    )
    temperature: float | None = Field(
        default=None,
        description=(
            "0, the default, takes the likeliest token; otherwise the logits that tokens are drawn from are divided "
            "by it. With `diffusion`, 0 makes answers repeatable (`seed=0` unless a seed is given), values up to 0.8 "
            "keep the checkpoint's own schedule, and higher ones set `t_max=temperature, t_min=temperature / 2`."
        ),
    )
    top_k: int | None = Field(
        default=None,
        description="Only this many of the likeliest tokens may be drawn. Not with `diffusion`.",
    )
    top_p: float | None = Field(
        default=None,
        description=(
            "Only the likeliest tokens that together reach this probability may be drawn; at most 1. Not with "
            "`diffusion`."
        ),
    )
    min_p: float | None = Field(
        default=None,
        description=(
            "Only tokens with at least this share of the likeliest token's probability may be drawn; at most 1. Not "
            "with `diffusion`."
        ),
    )
    logprobs: bool = Field(
        default=False,
        description="Return the log-probability of every token. Not with `diffusion`.",
    )
    top_logprobs: int = Field(
        default=0,
        description="Alternatives per token to return with `logprobs`, the likeliest ones. Unit: tokens.",
    )
    timeout: float | None = Field(
        default=None,
        description="Most seconds for a request, without loading the weights; then `RequestTimeoutError`.",
    )


class DraftFields(BaseModel):
    """For models that stream drafts where this setting asks for them."""

    drafts: bool = Field(default=False, description="Report the canvas as text after every denoising step.")
