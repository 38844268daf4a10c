"""Which device and dtype a checkpoint is loaded to."""

from __future__ import annotations

from typing import Any

import torch

from dgemma_core.errors import CheckpointError

# Above this many parameters float32 no longer fits ordinary machines; below, float32 is what the reference computes in.
_FLOAT32_PARAMETERS = 1_000_000_000


def pick_device(name: str) -> torch.device:
    """``auto`` is cuda, else mps, else cpu."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(
            f"device={name!r} is not a torch device: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise CheckpointError(f"device={name!r}: this machine or this torch build has none; use 'auto' or 'cpu'")
    return device


def pick_dtype(name: str, device: torch.device, config: Any) -> torch.dtype:
    """bfloat16 on accelerators that have it and for models too large for float32; float32 otherwise."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.bfloat16
    text = config.text_config
    width = (
        3 * text.hidden_size * (text.intermediate_size + (text.num_experts or 0) * (text.moe_intermediate_size or 0))
    )
    return torch.bfloat16 if width * text.num_hidden_layers > _FLOAT32_PARAMETERS else torch.float32
