"""What is said when there is nothing to load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DiffusionGemmaForBlockDiffusion

from dgemma_core import Engine, LoadSpec, SamplingParams
from dgemma_core.errors import CheckpointError, OutOfMemoryError


@pytest.fixture
def copy(tiny_checkpoint: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def failing_load(model: str | Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Engine(LoadSpec(model=str(model))).load()
    return str(caught.value)


def test_no_such_folder(tmp_path: Path) -> None:
    assert "no such folder" in failing_load(tmp_path / "nothing")


def test_a_hub_id_without_network() -> None:
    message = failing_load("nobody/no-such-checkpoint")
    assert "not a local folder" in message
    assert "model='embedded'" in message


def test_a_folder_without_config(tmp_path: Path) -> None:
    assert "no config.json" in failing_load(tmp_path)


def test_a_folder_without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert "looked for *.safetensors" in failing_load(copy)


def test_pickled_weights_are_not_loaded(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    message = failing_load(copy)
    assert "pytorch_model.bin" in message
    assert "safetensors" in message


def test_another_architecture(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert "'gpt2' checkpoint" in failing_load(copy)


def test_an_unknown_architecture(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    assert "cannot be read" in failing_load(copy)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"model_type": "diffusion_gemma", "canvas_length": "many"}'),
        ("tokenizer.json", '{"version": "1.0"}'),
        ("generation_config.json", '{"max_new_tokens": 64,'),
    ],
)
def test_damaged_small_files(copy: Path, name: str, text: str) -> None:
    (copy / name).write_text(text)
    assert name in failing_load(copy)


def test_weights_that_do_not_fit(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_args: Any, **_options: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory: tried to allocate 50 GiB")

    monkeypatch.setattr(DiffusionGemmaForBlockDiffusion, "from_pretrained", too_large)
    with pytest.raises(OutOfMemoryError, match="quantization"):
        Engine(LoadSpec(model=tiny_checkpoint)).load()


def test_what_goes_wrong_behind_the_weights(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_device(*_args: Any) -> Any:
        raise RuntimeError("invalid device ordinal")

    monkeypatch.setattr(DiffusionGemmaForBlockDiffusion, "to", no_such_device)
    with pytest.raises(CheckpointError, match="invalid device ordinal"):
        Engine(LoadSpec(model=tiny_checkpoint, device="cpu")).load()


def test_a_temperature_of_zero_in_the_checkpoint(copy: Path) -> None:
    path = copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"t_min": 0.0}))
    with Engine(LoadSpec(model=str(copy))) as engine, pytest.raises(ValueError, match="t_min=0"):
        engine.submit([2, 50])


def test_a_truncated_file(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\x00" * 100)
    assert "could not be loaded" in failing_load(copy)


def test_missing_tensors_are_not_made_up(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = next(n for n in tensors if "q_proj" in n)
    del tensors[name]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "lack 1 tensors" in failing_load(copy).replace("lack 2", "lack 1")


def test_a_failed_load_reaches_every_request(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    engine = Engine(LoadSpec(model=str(copy)))
    handle = engine.submit([2, 50])
    with pytest.raises(CheckpointError):
        handle.result(30)
    with pytest.raises(CheckpointError):
        engine.submit([2, 50])
    assert engine.closed


def test_a_device_that_is_not_there(tiny_checkpoint: str) -> None:
    with pytest.raises(CheckpointError, match="device='warp'"):
        Engine(LoadSpec(model=tiny_checkpoint, device="warp")).load()


def test_quantization_needs_cuda(tiny_checkpoint: str) -> None:
    with pytest.raises(CheckpointError, match="CUDA"):
        Engine(LoadSpec(model=tiny_checkpoint, device="cpu", quantization="int8")).load()


def test_dtype_choice(tiny_checkpoint: str) -> None:
    lines: list[str] = []
    with Engine(LoadSpec(model=tiny_checkpoint, dtype="bfloat16")) as engine:
        engine.load(lines.append)
        assert engine.generate([[2, 50, 51]], SamplingParams(max_new_tokens=5))[0].usage.completion_tokens == 5
        half = engine.stats().prefix_cache_bytes
    assert "bfloat16 on" in lines[0]
    with Engine(LoadSpec(model=tiny_checkpoint, dtype="float32")) as engine:
        engine.generate([[2, 50, 51]], SamplingParams(max_new_tokens=5))
        assert engine.stats().prefix_cache_bytes == 2 * half


def test_progress_is_told(tiny_checkpoint: str) -> None:
    lines: list[str] = []
    with Engine(LoadSpec(model=tiny_checkpoint)) as engine:
        engine.load(lines.append)
    assert any("float32 on" in line for line in lines)
    assert lines[-1].startswith("loaded in")


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", ""), ("model", None), ("model", 3), ("device", None), ("device", 0), ("revision", 1),
     ("dtype", "float8"), ("quantization", "int3"), ("max_context", 0), ("max_queue", 0),
     ("prefix_cache_bytes", -1), ("max_batch_tokens", 1.5)],
)  # fmt: skip
def test_bad_specs_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        LoadSpec(**{field: value})  # type: ignore[arg-type]


@pytest.mark.landing
def test_importing_the_core_is_light_and_needs_no_framework() -> None:
    code = (
        "import sys, dgemma_core; heavy = {'torch', 'transformers'} & set(sys.modules); assert not heavy, heavy\n"
        "from dgemma_core import Engine; Engine()\n"
        "frameworks = {'langchain_core', 'llama_index'} & set(sys.modules); assert not frameworks, frameworks"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
