"""The cost of a request, and the engine's counters."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_core.api.json_form import JsonForm


@dataclass(frozen=True)
class Usage(JsonForm):
    """Cost of one request.

    Attributes:
        prompt_tokens: tokens of the rendered prompt.
        cached_tokens: prompt tokens whose keys and values came from the prefix cache, or from another request in the
            same step.
        completion_tokens: tokens of the answer that were kept (not canvas positions).
        reasoning_tokens: kept tokens that are reasoning.
        canvases: canvases denoised. The one that drafts a verified answer is one canvas, however far it moves.
        denoising_steps: denoising steps this request took part in; 0 for a typewriter.
        positions: canvas positions computed over all denoising steps, without the drafts that were verified.
        forward_passes: forward passes this request took part in, with those of its prompt.
        queue_s: seconds from submit to the first forward pass.
        prefill_s: seconds from the first forward pass to the end of the first denoising step, or of the pass that
            predicts the first token.
        denoise_s: seconds from then to the request's end.
        guide_s: seconds of ``prefill_s`` and ``denoise_s`` that a guide, like a grammar, took on the host.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    canvases: int = 0
    denoising_steps: int = 0
    positions: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    denoise_s: float = 0.0
    guide_s: float = 0.0
    reasoning_tokens: int = 0
    forward_passes: int = 0

    @property
    def tokens_per_pass(self) -> float:
        """Kept tokens per forward pass; 0 when none ran."""
        return self.completion_tokens / self.forward_passes if self.forward_passes else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Kept tokens per denoising step; 0 when no step ran."""
        return self.completion_tokens / self.denoising_steps if self.denoising_steps else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Kept tokens per second of compute (prefill and denoising, without the wait in the queue)."""
        busy = self.prefill_s + self.denoise_s
        return self.completion_tokens / busy if busy > 0 else 0.0


@dataclass(frozen=True)
class EngineStats(JsonForm):
    """A snapshot of an engine's counters. The first three are zero when the engine is idle.

    Attributes:
        waiting: requests in the queue.
        running: requests that hold keys and values.
        kv_bytes: bytes of keys and values held by running requests.
        submitted, finished, cancelled, failed: requests so far; finished counts "stop" and "length".
        forward_passes: forward passes so far.
        completion_tokens: kept tokens of all requests that ended.
        canvases: canvases of all requests that ended.
        denoising_steps: sum over all requests.
        positions: canvas positions computed so far.
        prefill_tokens: tokens encoded so far: of prompts, of finished canvases, and of verified and typed answers
            those that no draft has encoded.
        max_batch: most requests that shared one forward pass.
        prefix_hits: times that a request reused a prefix, from the cache or from another request in the same step.
        prefix_tokens: prompt tokens in those reused prefixes.
        prefix_cache_bytes: bytes held by the prefix cache now.
        weight_loads: times the weights were read (0 before the first use, then 1).
        load_s: seconds the weights took to load.
    """

    waiting: int = 0
    running: int = 0
    kv_bytes: int = 0
    submitted: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    forward_passes: int = 0
    completion_tokens: int = 0
    canvases: int = 0
    denoising_steps: int = 0
    positions: int = 0
    prefill_tokens: int = 0
    max_batch: int = 0
    prefix_hits: int = 0
    prefix_tokens: int = 0
    prefix_cache_bytes: int = 0
    weight_loads: int = 0
    load_s: float = 0.0
