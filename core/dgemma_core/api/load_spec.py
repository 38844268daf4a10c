"""Which weights to load, where and how. Hashable: equal specs share one engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.setting_table import check_settings, documented, is_integer, setting

Device = str
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Threads = int | Literal["auto"]
Quantization = Literal["int8", "nf4"]

EMBEDDED = "embedded"
DEFAULT_MAX_QUEUE = 4096
DEFAULT_PREFIX_CACHE_BYTES = 256 * 2**20


@documented
@dataclass(frozen=True)
class LoadSpec(JsonForm):
    """Everything that decides which weights an engine holds and how it may use the machine.

    A bad value is a ``ValueError`` that names the field, its value and what is accepted.
    """

    model: str = setting(
        EMBEDDED,
        '`"embedded"` (the small checkpoint inside the package), a Hub id such as '
        '`"google/diffusiongemma-26B-A4B-it"`, or a local folder with `config.json` and safetensors.',
    )
    revision: str | None = setting(None, "Hub branch, tag or commit; only for Hub ids.")
    device: Device = setting("auto", '`"auto"` (cuda, else mps, else cpu) or a torch device such as `"cuda:1"`.')
    dtype: Dtype = setting(
        "auto", 'Number format of weights; `"auto"` is bfloat16 on accelerators and for large models, else float32.'
    )
    quantization: Quantization | None = setting(
        None, "How the linear layers are packed (bitsandbytes, on CUDA); `None` leaves them as they are."
    )
    max_context: int | None = setting(
        None, "Most tokens of prompt plus answer; `None` means the checkpoint's own limit.", low=1, unit="tokens"
    )
    max_batch_tokens: int | None = setting(
        None,
        "Most tokens (prompt chunks and canvas positions) in one forward pass, over all requests; `None` picks by "
        "device.",
        low=1,
        unit="tokens",
    )
    max_queue: int = setting(
        DEFAULT_MAX_QUEUE,
        "Most requests that may wait; one more is refused with `QueueFullError`.",
        low=1,
        unit="requests",
    )
    prefix_cache_bytes: int = setting(
        DEFAULT_PREFIX_CACHE_BYTES,
        "Bytes of keys and values kept for reuse across requests; 0 turns reuse off.",
        low=0,
        unit="bytes",
    )

    threads: Threads = setting(
        "auto",
        'Threads of a step on a CPU; `"auto"` measures a step when the weights are loaded, and takes more threads only '
        "if they are faster.",
    )

    def __post_init__(self) -> None:
        if isinstance(self.model, os.PathLike):
            object.__setattr__(self, "model", os.fspath(self.model))
        if not isinstance(self.model, str) or not self.model.strip():
            raise ValueError(f"model={self.model!r}: give 'embedded', a Hub id or a local folder")
        check_settings(self)
        threads = plain(self.threads)
        if threads != "auto" and not (is_integer(threads) and threads >= 1):
            raise ValueError(f"threads={self.threads!r}: must be 'auto' or an integer of at least 1")
        object.__setattr__(self, "threads", threads)
