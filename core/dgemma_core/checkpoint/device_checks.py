"""Whether this machine has a device and can compute on it, and if not, why."""

from __future__ import annotations

import os

import torch

from dgemma_core.errors import CheckpointError, is_out_of_memory

# Present where the driver of an NVIDIA or AMD accelerator is loaded.
_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/kfd")


def is_available(kind: str) -> bool:
    """Whether torch can compute on a device of this kind, such as ``"cuda"``, on this machine."""
    if kind == "cpu":
        return True
    if kind == "mps":
        return torch.backends.mps.is_available()
    try:
        return bool(torch.get_device_module(kind).is_available())
    except (RuntimeError, AttributeError):  # A kind that this build of torch knows by name only.
        return False


def check_index(name: str, device: torch.device) -> None:
    """Raise a ``CheckpointError`` if a device's number is beyond those of this machine."""
    if device.index is None:
        return
    numbered_here = device.type not in ("cpu", "mps")
    count = torch.get_device_module(device.type).device_count() if numbered_here else 1
    if 0 < count <= device.index:
        numbered = f"'{device.type}:0' to '{device.type}:{count - 1}'" if count > 1 else f"{device.type!r} only"
        raise CheckpointError(f"device={name!r}: this machine has {count} of this kind; use {numbered}")


def why_missing(kind: str) -> str:
    """Why torch has no device of this kind, in one clause."""
    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA; install a build with it, see https://pytorch.org"
    if kind == "cuda":
        try:
            torch.cuda.init()
        except Exception as error:  # torch says here what it misses: the driver, or a device.
            return str(error).strip().splitlines()[0].rstrip(".")
        return "torch finds no CUDA device"
    if kind == "mps":
        return f"torch {torch.__version__} finds no Apple GPU"
    return f"torch {torch.__version__} cannot compute on {kind!r} here"


def why_cpu() -> str:
    """Why ``device="auto"`` is the CPU on this machine, in one clause."""
    return why_missing("mps" if torch.backends.mps.is_built() else "cuda")


def has_driver() -> bool:
    """Whether the driver of an accelerator is loaded, whatever torch can use."""
    return any(os.path.exists(path) for path in _DRIVER_FILES)


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Multiply two small matrices.

    Raises:
        CheckpointError: the device cannot compute with this dtype.
    """
    name = str(dtype).removeprefix("torch.")
    try:
        ones = torch.ones(2, 2, dtype=dtype, device=device)
        (ones @ ones).sum().item()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"dtype={name!r}: {device} cannot compute with it ({error}); use dtype='auto', 'float32', or another device"
        ) from error
