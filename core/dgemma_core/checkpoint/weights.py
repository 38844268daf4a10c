"""Loads weights onto the device."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from dgemma_core.api.load_spec import EMBEDDED, LoadSpec
from dgemma_core.api.protocol import Progress
from dgemma_core.checkpoint.description import CheckpointDescription
from dgemma_core.checkpoint.devices import pick_device, pick_dtype
from dgemma_core.checkpoint.files import check_weight_files, checkpoint_folder
from dgemma_core.errors import CheckpointError, is_out_of_memory


def load_weights(spec: LoadSpec, description: CheckpointDescription, progress: Progress | None = None) -> Any:
    """Load the weights in eval mode onto the device.

    Args:
        spec: which weights, where and how.
        description: of the same checkpoint.
        progress: called with a line of text at every stage.

    Returns:
        A ``DiffusionGemmaForBlockDiffusion``.

    Raises:
        CheckpointError: no safetensors, wrong shapes, or no such device.
        Exception: memory ran out; ``errors.is_out_of_memory`` recognises it.
    """
    report = progress or (lambda _line: None)
    folder = checkpoint_folder(spec, weights=True)
    check_weight_files(folder)
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device, description.config)
    options: dict[str, Any] = {}
    if spec.quantization is not None:
        options["quantization_config"] = _quantization(spec.quantization, device)
    if device.type != "cpu" and (spec.quantization is not None or _has_accelerate()):
        options["device_map"] = {"": device}
    report(f"loading {spec.model} as {str(dtype).removeprefix('torch.')} on {device}")
    began = time.monotonic()
    with _no_progress_bar(spec.model == EMBEDDED or progress is not None):
        model = _read(folder, dtype, options)
    model.eval()
    if "device_map" not in options:
        model.to(device)
    report(f"loaded in {time.monotonic() - began:.1f} s")
    return model


def _read(folder: Path, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    from transformers import DiffusionGemmaForBlockDiffusion

    try:
        # With output_loading_info it returns a pair, contrary to its annotations.
        read: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"the weights in {folder} could not be loaded: {error}") from error
    model, info = read
    if info["missing_keys"]:
        # transformers would put random numbers in their place.
        missing = sorted(info["missing_keys"])
        raise CheckpointError(
            f"the weights in {folder} lack {len(missing)} tensors, for example {missing[0]!r}: download them again"
        )
    return model


def _quantization(name: str, device: torch.device) -> Any:
    if device.type != "cuda":
        raise CheckpointError(f"quantization={name!r} needs a CUDA device, not {device}; leave it out")
    try:
        import bitsandbytes  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError as error:
        raise CheckpointError(
            f"quantization={name!r} needs bitsandbytes: pip install bitsandbytes accelerate"
        ) from error
    from transformers import BitsAndBytesConfig

    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _has_accelerate() -> bool:
    return importlib.util.find_spec("accelerate") is not None


@contextmanager
def _no_progress_bar(quiet: bool) -> Iterator[None]:
    """Hide transformers' own progress bar if ``quiet``."""
    from transformers.utils import logging

    if not quiet:
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
