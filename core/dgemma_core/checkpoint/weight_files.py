"""Checks a folder's safetensors before they are loaded: all there, whole, and numbers that can be used as they are."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dgemma_core.checkpoint.small_files import problem_of
from dgemma_core.errors import CheckpointError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# Weights of these types are numbers times a scale that is stored elsewhere.
_PACKED = ("F8", "F4", "F6", "I8", "U8", "I4", "U4", "E8")


def check_weights(folder: Path, *, quantized: bool = False) -> None:
    """Check the files that transformers would read. Reads their headers only.

    Args:
        folder: with safetensors.
        quantized: whether packed numbers are expected.

    Raises:
        CheckpointError: a file is missing, cut short, damaged or a git-LFS pointer, or holds packed numbers.
    """
    for path in _files(folder):
        if problem := problem_of(path):
            raise _failed(folder, problem)
        try:
            # It reads the header, and checks that the file is as long as the header says.
            with safe_open(path, framework="pt") as tensors:
                kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise _failed(
                folder, f"{path.name} is cut short or damaged ({error}); download it again, or copy it again"
            ) from error
        for name, kind in kinds.items():
            if kind.startswith(_PACKED) and not quantized:
                raise _failed(
                    folder,
                    f"{path.name} holds {name!r} as {kind}, so it is quantized, but config.json has no "
                    "quantization_config; use a checkpoint in bfloat16, float16 or float32",
                )


def _files(folder: Path) -> list[Path]:
    """The files of the weights, all of which exist."""
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    index = folder / _INDEX
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if not index.is_file():
        some = f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
        raise _failed(folder, f"there are {some}, but neither {_SINGLE} nor {_INDEX}; download the missing file")
    if problem := problem_of(index):
        raise _failed(folder, problem)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _failed(folder, f"{_INDEX} is damaged ({error!r}); download it again") from error
    missing = [name for name in names if name not in found]
    if missing:
        some = f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        raise _failed(
            folder, f"{len(missing)} of {len(names)} files that {_INDEX} names are missing: {some}; download them"
        )
    return [folder / name for name in names]


def _failed(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"the weights in {folder} could not be loaded: {reason}")
