"""The cost of an answer, under the names that both adapters report."""

from __future__ import annotations

from typing import Any

from dgemma_core.api.events import Generation


def generation_numbers(generation: Generation) -> dict[str, Any]:
    """The reason why the answer ended, and its cost, as plain JSON values."""
    usage = generation.usage
    return {
        "finish_reason": generation.finish_reason,
        "forward_passes": usage.forward_passes,
        "tokens_per_pass": usage.tokens_per_pass,
        "canvases": usage.canvases,
        "denoising_steps": usage.denoising_steps,
        "tokens_per_step": usage.tokens_per_step,
        "tokens_per_s": usage.tokens_per_s,
        "timings": {"queue_s": usage.queue_s, "prefill_s": usage.prefill_s, "denoise_s": usage.denoise_s},
    }
