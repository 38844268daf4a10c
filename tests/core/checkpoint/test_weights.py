"""Weights: from safetensors only, whatever lies beside them, onto the device that was asked for."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from dgemma_core import LoadSpec
from dgemma_core.checkpoint.description import read_description
from dgemma_core.checkpoint.weights import load_weights


class Trap:
    """What it pickles to writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_pickled_weights_beside_safetensors_are_not_read(tiny_checkpoint: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    for name in ("pytorch_model.bin", "model.pt"):
        (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    spec = LoadSpec(model=str(folder), device="cpu")
    model, clean = load_weights(spec, read_description(spec)), LoadSpec(model=tiny_checkpoint, device="cpu")
    expected = load_weights(clean, read_description(clean))
    weights = model.model.decoder.embed_tokens.weight
    assert torch.equal(weights, expected.model.decoder.embed_tokens.weight)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_come_as_they_were_asked_for(tiny_checkpoint: str, dtype: str, expected: torch.dtype) -> None:
    spec = LoadSpec(model=tiny_checkpoint, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    lines: list[str] = []
    model = load_weights(spec, read_description(spec), lines.append)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert lines[0] == f"loading {tiny_checkpoint} as {str(expected).removeprefix('torch.')} on cpu"
    assert lines[1].startswith("loaded in ")
    assert len(lines) == 2
    assert logging.is_progress_bar_enabled(), "the bar of other models is left as it was"
