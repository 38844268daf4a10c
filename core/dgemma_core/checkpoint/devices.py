"""The device and the dtype that a checkpoint is loaded to."""

from __future__ import annotations

from typing import Any

import torch

from dgemma_core.errors import CheckpointError

# Larger models do not fit ordinary machines in float32. Smaller ones compute in float32, as the reference does.
_FLOAT32_PARAMETERS = 1_000_000_000


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is cuda, else mps, else cpu.

    Raises:
        CheckpointError: no torch device, or one that this machine does not have.
    """
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
        raise CheckpointError(
            f"device={name!r}: this machine or this build of torch has no such device; use 'auto' or 'cpu'"
        )
    return device


def pick_dtype(name: str, device: torch.device, config: Any) -> torch.dtype:
    """The dtype of that name; ``auto`` depends on the device and the size of the model.

    On an accelerator it is bfloat16, or float16 on CUDA without bfloat16. On a CPU it is float32, or bfloat16 for
    models that are too large for float32.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.bfloat16
    text = config.text_config
    feed_forward = text.intermediate_size + (text.num_experts or 0) * (text.moe_intermediate_size or 0)
    parameters = 3 * text.hidden_size * feed_forward * text.num_hidden_layers
    return torch.bfloat16 if parameters > _FLOAT32_PARAMETERS else torch.float32
