"""Which device and dtype a checkpoint is loaded to."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dgemma_core import Engine, LoadSpec
from dgemma_core.checkpoint.device_checks import check_dtype
from dgemma_core.checkpoint.devices import pick_device, pick_dtype
from dgemma_core.errors import CheckpointError

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


def config(hidden: int, layers: int, experts: int | None = None) -> SimpleNamespace:
    """A configuration with about ``9 * hidden ** 2`` parameters a layer, and as many for each expert."""
    sizes = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "moe_intermediate_size": 3 * hidden}
    return SimpleNamespace(text_config=SimpleNamespace(**sizes, num_experts=experts, num_hidden_layers=layers))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without accelerators, whatever this one has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def test_auto_is_the_fastest_there_is(machine: pytest.MonkeyPatch) -> None:
    assert pick_device("auto") == CPU
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == MPS
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == CUDA


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_what_this_machine_lacks_is_told(machine: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"device='{name}': this machine"):
        pick_device(name)


def test_a_device_by_name(machine: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == CPU
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(CheckpointError, match="device='warp' is not a torch device"):
        pick_device("warp")


@pytest.mark.parametrize("name", ["cpu:1", "cpu:3"])
def test_a_number_that_the_cpu_does_not_have(name: str) -> None:
    assert pick_device("cpu:0") == torch.device("cpu", 0)
    with pytest.raises(CheckpointError, match=f"device='{name}': this machine has 1 of this kind; use 'cpu' only"):
        pick_device(name)


def test_a_number_beyond_this_machines_gpus(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(CheckpointError, match="device='cuda:7': this machine has 2 of this kind; use 'cuda:0' to"):
        pick_device("cuda:7")


@pytest.mark.parametrize("name", ["xpu", "hpu", "meta", "vulkan", "xla"])
def test_a_kind_that_torch_knows_by_name_only(machine: pytest.MonkeyPatch, name: str) -> None:
    machine.setattr(torch.xpu, "is_available", lambda: False)
    with pytest.raises(CheckpointError, match=f"device='{name}': this machine or this build.*use 'auto' or 'cpu'"):
        pick_device(name)


@pytest.mark.parametrize(("name", "meant"), [("gpu", "cuda"), ("CPU", "cpu"), ("1", "cuda:1"), ("Cuda:0", "cuda:0")])
def test_a_device_by_another_name(name: str, meant: str) -> None:
    with pytest.raises(CheckpointError, match=f"device='{name}' is not a torch device .did you mean '{meant}'"):
        pick_device(name)


def test_a_dtype_that_the_device_cannot_do() -> None:
    check_dtype(torch.float16, CPU)
    with pytest.raises(CheckpointError, match=r"dtype='bfloat16': meta cannot compute with it .*use dtype='auto'"):
        check_dtype(torch.bfloat16, torch.device("meta"))


def test_a_device_is_looked_for_before_weights_are(tiny_checkpoint: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (folder / "model.safetensors").unlink()
    for settings, name in (({"device": "cpu:3"}, "device"), ({"device": "cpu", "quantization": "nf4"}, "quantization")):
        with pytest.raises(CheckpointError, match=f"{name}="):
            Engine(LoadSpec(model=str(folder), **settings)).load()  # type: ignore[arg-type]


@pytest.mark.parametrize(("driver", "level"), [(False, logging.INFO), (True, logging.WARNING)])
def test_auto_says_why_it_is_the_cpu(
    machine: pytest.MonkeyPatch, tiny_checkpoint: str, caplog: pytest.LogCaptureFixture, driver: bool, level: int
) -> None:
    machine.setattr("dgemma_core.checkpoint.weights.has_driver", lambda: driver)
    with caplog.at_level(logging.INFO, "dgemma_core"):
        Engine(LoadSpec(model=tiny_checkpoint, device="cpu")).load()
        assert not caplog.records
        Engine(LoadSpec(model=tiny_checkpoint)).load()
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage().startswith("device='auto' is the CPU here: ")
    assert "torch" in record.getMessage()


def test_a_dtype_by_name() -> None:
    for device in (CPU, CUDA, MPS):
        assert pick_dtype("float16", device, None) == torch.float16


def test_small_models_are_float32_on_a_cpu() -> None:
    assert pick_dtype("auto", CPU, config(hidden=128, layers=4)) == torch.float32
    assert pick_dtype("auto", CPU, config(hidden=4096, layers=40)) == torch.bfloat16
    # Ten million parameters a layer: experts count.
    assert pick_dtype("auto", CPU, config(hidden=1024, layers=20)) == torch.float32
    assert pick_dtype("auto", CPU, config(hidden=1024, layers=20, experts=8)) == torch.bfloat16


def test_accelerators_compute_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    small = config(hidden=128, layers=4)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert pick_dtype("auto", CUDA, small) == pick_dtype("auto", MPS, small) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert pick_dtype("auto", CUDA, small) == torch.float16
