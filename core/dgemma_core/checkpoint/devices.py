"""The device and the dtype that a checkpoint is loaded to."""

from __future__ import annotations

from typing import Any

import torch

from dgemma_core.checkpoint.device_checks import check_index, is_available, why_missing
from dgemma_core.errors import CheckpointError

# Larger models do not fit ordinary machines in float32. Smaller ones compute in float32, as the reference does.
_FLOAT32_PARAMETERS = 1_000_000_000


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is cuda, else mps, else cpu.

    Raises:
        CheckpointError: no torch device, or one that this machine does not have.
    """
    if name == "auto":
        name = next((kind for kind in ("cuda", "mps") if is_available(kind)), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        lower = str(name).lower()
        hint = f" (did you mean 'cuda:{name}'?)" if lower.isdecimal() else ""
        if lower in ("gpu", "nvidia", "gpu:0"):
            hint = " (did you mean 'cuda'?)"
        elif lower != name:
            hint = f" (did you mean {lower!r}?)"
        raise CheckpointError(
            f"device={name!r} is not a torch device{hint}: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    if not is_available(device.type):
        raise CheckpointError(
            f"device={name!r}: this machine or this build of torch has no such device ({why_missing(device.type)}); "
            "use 'auto' or 'cpu'"
        )
    check_index(name, device)
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
    if device.type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if is_large(config) else torch.float32


def is_large(config: Any) -> bool:
    """Whether a model has too many parameters for float32 on an ordinary machine."""
    text = config.text_config
    feed_forward = text.intermediate_size + (text.num_experts or 0) * (text.moe_intermediate_size or 0)
    return bool(3 * text.hidden_size * feed_forward * text.num_hidden_layers > _FLOAT32_PARAMETERS)
