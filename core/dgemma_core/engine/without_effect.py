"""One warning in the log for each setting that cannot have the effect that was asked for."""

from __future__ import annotations

import logging
import os

import torch

from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.checkpoint.description import CheckpointDescription
from dgemma_core.execution.backend import Backend

logger = logging.getLogger(__name__)


def tell_limits(spec: LoadSpec, description: CheckpointDescription) -> None:
    """Warn of limits that the checkpoint does not follow. Needs no weights."""
    window = description.context_window(None)
    if spec.max_context is not None and spec.max_context > window:
        logger.warning(
            "max_context=%s: the checkpoint's context window holds %s tokens, so that is the limit",
            spec.max_context,
            window,
        )
    if spec.max_batch_tokens is not None and spec.max_batch_tokens < description.canvas_limit:
        logger.warning(
            "max_batch_tokens=%s: a canvas of this checkpoint has %s tokens and is denoised whole, so a forward pass "
            "may have as many; ask for a smaller canvas_length, or raise max_batch_tokens",
            spec.max_batch_tokens,
            description.canvas_limit,
        )


def tell_prefix_cache(spec: LoadSpec, backend: Backend) -> None:
    """Warn of a prefix cache that cannot hold anything, or that may grow until memory runs out."""
    size = spec.prefix_cache_bytes
    if size and size < (least := backend.slot_bytes(1)):
        logger.warning(
            "prefix_cache_bytes=%s: keys and values of one token take %s bytes, so nothing is reused; raise it, or "
            "write 0",
            size,
            least,
        )
    memory = memory_bytes(on_cpu=backend.on_cpu)
    if memory is not None and size > memory:
        logger.warning(
            "prefix_cache_bytes=%s: the device has %s bytes of memory in all, so it may run out before the cache is "
            "full; lower it",
            size,
            memory,
        )


def memory_bytes(*, on_cpu: bool) -> int | None:
    """Memory of the host or of the CUDA device, in bytes. None if it is not known."""
    if not on_cpu:
        return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows.
        return None


class TemplateWarnings:
    """Warns once of each part of a request that a chat template does not show to the model.

    Args:
        template: the chat template's text, or None if it is not known.
    """

    def __init__(self, template: str | None) -> None:
        self._template = template
        self._told: set[str] = set()

    def tell(self, *, tools: bool, thinking: bool) -> None:
        """Warn if the template has no place for tools or thinking, and a request has them."""
        if tools:
            self._miss(
                "tools", "tools: this checkpoint's chat template has no place for them, so the model is not told"
            )
        if thinking:
            self._miss(
                "enable_thinking",
                "thinking=True: this checkpoint's chat template has no such switch, so the model is not asked to think",
            )

    def _miss(self, variable: str, text: str) -> None:
        if self._template is None or variable in self._template or variable in self._told:
            return
        self._told.add(variable)
        logger.warning("%s", text)
