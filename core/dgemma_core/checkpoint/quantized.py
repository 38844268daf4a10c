"""Quantization: of a checkpoint's own weights, and while weights load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dgemma_core.errors import CheckpointError

_OURS = "bitsandbytes"
# The second is the older name of compressed-tensors.
_FIELDS = ("quantization_config", "compression_config")
# Files in which older tools write down how the weights are quantized.
_SIDE_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_REMEDY = (
    "use the checkpoint that is not quantized, with quantization='int8' or 'nf4' on a CUDA device to make it smaller"
)


def check_quantized(config: Any, folder: Path) -> None:
    """Refuse weights that are quantized in a way that this engine does not run.

    Raises:
        CheckpointError: naming the method, where it is written, and what to use instead.
    """
    for owner, prefix in ((config, ""), (config.text_config, "text_config.")):
        for field in _FIELDS:
            given = getattr(owner, field, None)
            if given and (method := method_of(given)) != _OURS:
                raise CheckpointError(
                    f"{folder}/config.json: {prefix}{field} says that the weights are quantized by {method!r}, which "
                    f"this engine does not run; {_REMEDY}"
                )
    for name in _SIDE_FILES:
        if (folder / name).is_file() and not getattr(config, "quantization_config", None):
            raise CheckpointError(
                f"{folder}/{name} says that the weights are quantized, which this engine does not run; {_REMEDY}"
            )


def method_of(quantization: Any) -> str:
    """The ``quant_method`` of a quantization config, which may be a dict or an object."""
    fields: dict[str, Any] = quantization if isinstance(quantization, dict) else vars(quantization)
    method = fields.get("quant_method")
    if method is None:
        # Older bitsandbytes checkpoints have these flags alone.
        flagged = fields.get("load_in_8bit") or fields.get("load_in_4bit")
        method = _OURS if flagged else "an unnamed method"
    return str(getattr(method, "value", method))


def quantization_options(name: str | None, config: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Keyword arguments of ``from_pretrained`` for a ``LoadSpec.quantization``.

    Args:
        name: as in ``LoadSpec``.
        config: the checkpoint's configuration.
        device: that the weights are loaded to.
        dtype: that the layers compute in.

    Raises:
        CheckpointError: not on this device, not with this checkpoint, or a package is missing.
    """
    own = getattr(config, "quantization_config", None)
    if name is None and not own:
        return {}
    asked = f"quantization={name!r}" if name is not None else "the checkpoint, which is quantized by bitsandbytes,"
    if name is not None and own:
        raise CheckpointError(
            f"{asked}: the checkpoint's weights are already quantized by {method_of(own)!r}; leave quantization out"
        )
    if device.type != "cuda":
        raise CheckpointError(
            f"{asked} needs a CUDA device, not {device}; "
            + ("leave it out" if name is not None else "use the checkpoint that is not quantized")
        )
    for package in ("bitsandbytes", "accelerate"):
        try:
            __import__(package)
        except ImportError as error:
            raise CheckpointError(f"{asked} needs {package}: pip install bitsandbytes accelerate") from error
    if name is None:
        return {}
    from transformers import BitsAndBytesConfig

    if name == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": four_bits}
