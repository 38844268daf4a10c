"""Loads weights onto the device."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from dgemma_core.api.load_spec import EMBEDDED, LoadSpec
from dgemma_core.api.protocol import Progress
from dgemma_core.checkpoint.description import CheckpointDescription
from dgemma_core.checkpoint.device_checks import check_dtype, has_driver, why_cpu
from dgemma_core.checkpoint.devices import is_large, pick_device, pick_dtype
from dgemma_core.checkpoint.files import check_weight_files, checkpoint_folder, is_local
from dgemma_core.checkpoint.quantized import quantization_options
from dgemma_core.checkpoint.weight_files import check_weights
from dgemma_core.errors import CheckpointError, is_out_of_memory

logger = logging.getLogger(__name__)


def load_weights(spec: LoadSpec, description: CheckpointDescription, progress: Progress | None = None) -> Any:
    """Load the weights in eval mode onto the device.

    Args:
        spec: which weights, where and how.
        description: of the same checkpoint.
        progress: called with a line of text at every stage.

    Returns:
        A ``DiffusionGemmaForBlockDiffusion``.

    Raises:
        CheckpointError: no safetensors, damaged ones, wrong shapes, or no such device.
        Exception: memory ran out; ``errors.is_out_of_memory`` recognises it.
    """
    report = progress or (lambda _line: None)
    # Before the weights are downloaded.
    place = placement(spec, description)
    folder = checkpoint_folder(spec, weights=True)
    check_weight_files(folder)
    check_weights(folder, quantized=place.quantized)
    _tell_fallback(spec, place.device, description)
    report(f"loading {spec.model} as {str(place.dtype).removeprefix('torch.')} on {place.device}")
    began = time.monotonic()
    with _no_progress_bar(spec.model == EMBEDDED or progress is not None):
        model = _read(folder, place)
    model.eval()
    if "device_map" not in place.options:
        model.to(place.device)
    report(f"loaded in {time.monotonic() - began:.1f} s")
    return model


@dataclass(frozen=True)
class Placement:
    """Where and how weights are loaded.

    Attributes:
        device: the device.
        dtype: number format.
        options: further arguments of ``from_pretrained``.
        quantized: whether the checkpoint's own weights are packed numbers.
    """

    device: torch.device
    dtype: torch.dtype
    options: dict[str, Any]
    quantized: bool


def placement(spec: LoadSpec, description: CheckpointDescription) -> Placement:
    """Where and how the weights of a spec would be loaded. Reads none.

    Raises:
        CheckpointError: no such device, or it cannot compute with the dtype or the quantization.
    """
    config = description.config
    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device, config)
    check_dtype(dtype, device)
    options = quantization_options(spec.quantization, config, device, dtype)
    quantized = bool(getattr(config, "quantization_config", None))
    if device.type != "cpu" and (options or quantized or _has_accelerate()):
        options["device_map"] = {"": device}
    return Placement(device, dtype, options, quantized)


def check_loadable(spec: LoadSpec, description: CheckpointDescription) -> None:
    """Check all that can be checked without loading or downloading weights.

    Raises:
        CheckpointError: as :func:`load_weights`.
    """
    place = placement(spec, description)
    folder = checkpoint_folder(spec)
    if is_local(spec) or any(folder.glob("*.safetensors")):
        check_weight_files(folder)
        check_weights(folder, quantized=place.quantized)


def _tell_fallback(spec: LoadSpec, device: torch.device, description: CheckpointDescription) -> None:
    """One line in the log if ``auto`` is the CPU. A warning if an accelerator seems to be there, or is needed."""
    if spec.device == "auto" and device.type == "cpu":
        level = logging.WARNING if has_driver() or is_large(description.config) else logging.INFO
        logger.log(level, "device='auto' is the CPU here: %s", why_cpu())


_OTHER_SHAPES = (
    "their shapes are not those of config.json, so the files belong to different checkpoints; download both again"
)


def _read(folder: Path, place: Placement) -> Any:
    from transformers import DiffusionGemmaForBlockDiffusion

    try:
        # With output_loading_info it returns a pair, contrary to its annotations.
        read: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(
            folder,
            dtype=place.dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **place.options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        reason = _OTHER_SHAPES if "ignore_mismatched_sizes" in str(error) else error
        raise CheckpointError(f"the weights in {folder} could not be loaded: {reason}") from error
    model, info = read
    if info["missing_keys"]:
        # transformers would put random numbers in their place.
        missing = sorted(info["missing_keys"])
        raise CheckpointError(
            f"the weights in {folder} lack {len(missing)} tensors, for example {missing[0]!r}: download them again"
        )
    return model


def _has_accelerate() -> bool:
    return importlib.util.find_spec("accelerate") is not None


@contextmanager
def _no_progress_bar(quiet: bool) -> Iterator[None]:
    """Hide transformers' own progress bar if ``quiet``."""
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar

    if not quiet:
        yield
        return
    disable_progress_bar()
    try:
        yield
    finally:
        enable_progress_bar()
