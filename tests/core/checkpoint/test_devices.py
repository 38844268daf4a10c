"""Which device and dtype a checkpoint is loaded to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

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
