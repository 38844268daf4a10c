"""Which weights to load, where and how. Hashable: equal specs share one engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from dgemma_core.api.json_form import JsonForm

Device = str
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["int8", "nf4"]

EMBEDDED = "embedded"
DEFAULT_MAX_QUEUE = 4096
DEFAULT_PREFIX_CACHE_BYTES = 256 * 2**20

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_QUANTIZATIONS = ("int8", "nf4")


@dataclass(frozen=True)
class LoadSpec(JsonForm):
    """Everything that decides which weights an engine holds and how it may use the machine.

    Args:
        model: ``"embedded"`` (the small checkpoint inside this package), a Hub id such as
            ``"google/diffusiongemma-26B-A4B-it"``, or a local folder with ``config.json`` and safetensors.
        revision: Hub branch, tag or commit; only for Hub ids.
        device: ``"auto"`` (cuda, else mps, else cpu) or a torch device string such as ``"cuda:1"``.
        dtype: ``"auto"`` (bfloat16 on accelerators and for large models, else float32) or a name.
        quantization: ``None``, ``"int8"`` or ``"nf4"`` (linear layers, through bitsandbytes on CUDA).
        max_context: tokens of prompt plus answer; ``None`` means what the checkpoint was made for.
        max_batch_tokens: tokens (prompt chunks and canvas positions) in one forward pass; ``None`` picks by device.
        max_queue: requests that may wait before ``submit`` raises ``QueueFullError``.
        prefix_cache_bytes: bytes of keys and values kept for reuse across requests; 0 turns reuse off.

    Raises:
        ValueError: naming the field, its value and what is accepted.
    """

    model: str = EMBEDDED
    revision: str | None = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    quantization: Quantization | None = None
    max_context: int | None = None
    max_batch_tokens: int | None = None
    max_queue: int = DEFAULT_MAX_QUEUE
    prefix_cache_bytes: int = DEFAULT_PREFIX_CACHE_BYTES

    def __post_init__(self) -> None:
        if isinstance(self.model, os.PathLike):
            object.__setattr__(self, "model", os.fspath(self.model))
        if not isinstance(self.model, str) or not self.model.strip():
            raise ValueError(f"model={self.model!r}: give 'embedded', a Hub id or a local folder")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: choose one of {', '.join(_DTYPES)}")
        if self.quantization is not None and self.quantization not in _QUANTIZATIONS:
            raise ValueError(f"quantization={self.quantization!r}: choose None, {' or '.join(_QUANTIZATIONS)}")
        for field in ("max_context", "max_batch_tokens"):
            value = getattr(self, field)
            if value is not None and (not _is_int(value) or value < 1):
                raise ValueError(f"{field}={value!r}: must be a positive integer or None")
        if not _is_int(self.max_queue) or self.max_queue < 1:
            raise ValueError(f"max_queue={self.max_queue!r}: must be a positive integer")
        if not _is_int(self.prefix_cache_bytes) or self.prefix_cache_bytes < 0:
            raise ValueError(f"prefix_cache_bytes={self.prefix_cache_bytes!r}: must be a non-negative integer")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
