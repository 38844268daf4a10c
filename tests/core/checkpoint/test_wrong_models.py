"""People give a wrong model: the error names it and says what to do, before weights are read."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from dgemma_core import Engine, LoadSpec
from dgemma_core.checkpoint.description import read_description
from dgemma_core.checkpoint.files import checkpoint_folder
from dgemma_core.checkpoint.weight_files import check_weights
from dgemma_core.errors import CheckpointError
from tests.checkpoints import make_model, make_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 123456\n"


@pytest.fixture
def copy(tiny_checkpoint: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def refused(model: str | Path, **settings: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_description(LoadSpec(model=str(model), **settings))
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        ("llama3:8b", "one of Ollama's"),
        ("user/model:latest", "one of Ollama's"),
        ("/models/gemma-Q4_K_M.gguf", "GGUF files are not read"),
        ("owner/gemma-Q4.gguf", "GGUF files are not read"),
        ("https://huggingface.co/google/diffusiongemma-26B-A4B-it/tree/main", "'google/diffusiongemma-26B-A4B-it'"),
        ("Embedded", "Write 'embedded'"),
        ("embeded", "Did you mean 'embedded'?"),
        (" google/diffusiongemma-26B-A4B-it", "write 'google/diffusiongemma-26B-A4B-it'"),
        ("~nobody-of-this-name/model", "home folder is not known"),
        ("x" * 300, "Give 'embedded', an existing folder"),
        ("a\0b", "Give 'embedded', an existing folder"),
    ],
)
def test_a_name_that_is_neither_folder_nor_hub_id(model: str, remedy: str) -> None:
    message = refused(model)
    assert f"model={model!r}: no such folder" in message
    assert remedy in message


def test_a_mistyped_folder_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint").mkdir()
    assert f"Did you mean '{tmp_path}/checkpoint'?" in refused(tmp_path / "chekpoint")
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"x")
    assert f"give its folder, '{tmp_path}/checkpoint'" in refused(tmp_path / "checkpoint" / "model.safetensors")
    monkeypatch.chdir(tmp_path.parent)
    assert f"the folder '{tmp_path.name}/checkpoint'?" in refused(f"{tmp_path.name}/checkpiont")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("model-Q4.gguf", "it holds GGUF files"),
        ("adapter_config.json", "LoRA adapter; merge it"),
        (None, "it is empty; download"),
        ("notes.txt", "point `model` at a folder with a DiffusionGemma checkpoint"),
    ],
)
def test_a_folder_of_something_else(tmp_path: Path, name: str | None, remedy: str) -> None:
    if name:
        (tmp_path / name).write_text("")
    message = refused(tmp_path)
    assert f"{tmp_path} has no config.json: " in message
    assert remedy in message


def test_the_folder_above_the_checkpoint(copy: Path) -> None:
    assert f"did you mean model={str(copy)!r}?" in refused(copy.parent)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "no_such_model"])
def test_a_folder_of_another_model(copy: Path, kind: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    assert f"is a {kind!r} checkpoint" in refused(copy)


def test_a_tokenizer_in_another_form_only(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.model").write_bytes(b"sentencepiece")
    message = refused(copy)
    assert "has no tokenizer.json" in message
    assert "save_pretrained(folder)" in message


def test_a_tokenizer_of_another_model(copy: Path) -> None:
    larger = checkpoint_folder(LoadSpec())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(larger / name, copy / name)
    assert "the tokenizer has 3072 tokens, but the model's vocabulary 512" in refused(copy)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(larger, local_files_only=True)
    with pytest.raises(ValueError, match="they belong to different checkpoints; use the tokenizer that came with"):
        Engine.from_model(make_model(), tokenizer)


@pytest.mark.parametrize("tokenizer", [None, "google/diffusiongemma-26B-A4B-it"])
def test_a_tokenizer_that_is_none(tokenizer: object) -> None:
    with pytest.raises(ValueError, match=f"tokenizer={tokenizer!r}: must be a PreTrainedTokenizerFast"):
        Engine.from_model(make_model(), tokenizer)


@pytest.mark.parametrize("text", [POINTER, "", "<!DOCTYPE html><html>404</html>"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"])
def test_a_file_that_was_not_downloaded_right(copy: Path, name: str, text: str) -> None:
    (copy / name).write_text(text)
    with pytest.raises(CheckpointError) as caught:
        Engine(LoadSpec(model=str(copy), device="cpu")).load()
    assert f"{name} is " in str(caught.value)
    assert "download" in str(caught.value)


def sharded(folder: Path) -> list[Path]:
    make_model().save_pretrained(folder, max_shard_size="200KB")
    make_tokenizer().save_pretrained(folder)
    return sorted(folder.glob("*-of-*.safetensors"))


def test_a_missing_shard_or_index(tmp_path: Path) -> None:
    shards = sharded(tmp_path)
    check_weights(tmp_path)
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"1 of {len(shards)} files .* are missing: {shards[1].name}"):
        check_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"index\.json is damaged .* download it again"):
        check_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"but neither model\.safetensors nor model\.safetensors\.index\.json"):
        check_weights(tmp_path)


@pytest.mark.parametrize("kept", [5, 50, 0.5, -1])
def test_a_download_that_was_cut_short(copy: Path, kept: float) -> None:
    path = copy / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
    with pytest.raises(CheckpointError, match=r"could not be loaded: model\.safetensors is cut short or damaged"):
        Engine(LoadSpec(model=str(copy), device="cpu")).load()


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "no_such_method"}}, "no_such_method"),
        ({"quantization_config": {"bits": 4}}, "an unnamed method"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ],
)
def test_a_checkpoint_that_is_quantized_otherwise(copy: Path, config: dict[str, Any], method: str) -> None:
    saved = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(saved | config))
    message = refused(copy)
    assert f"quantized by {method!r}" in message
    assert "use the checkpoint that is not quantized" in message


def test_a_quantized_checkpoint_of_an_older_tool(copy: Path) -> None:
    (copy / "quantize_config.json").write_text('{"bits": 4}')
    assert "quantize_config.json says that the weights are quantized" in refused(copy)


def test_packed_weights_that_no_file_tells_of(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in tensors if "q_proj" in name)
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="as F8_E4M3, so it is quantized"):
        Engine(LoadSpec(model=str(copy), device="cpu")).load()


def test_bitsandbytes_weights_without_cuda(copy: Path) -> None:
    saved = json.loads((copy / "config.json").read_text())
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (copy / "config.json").write_text(json.dumps(saved | {"quantization_config": quantization}))
    with pytest.raises(CheckpointError, match="bitsandbytes, needs a CUDA device, not cpu"):
        Engine(LoadSpec(model=str(copy), device="cpu")).load()


def test_a_revision_of_a_local_checkpoint(tiny_checkpoint: str) -> None:
    assert "only a Hub id has revisions; leave revision out" in refused(tiny_checkpoint, revision="main")
    assert "model='embedded' is inside the package" in refused("embedded", revision="v1")


class Answer:
    """As much of a response as the Hub's errors read."""

    status_code, headers, request, text, reason_phrase = 403, {}, None, "", ""


def hub_error(kind: type[Exception]) -> Exception:
    return kind("no", response=Answer())  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (hub_error(errors.GatedRepoError), "Ask for access at https://huggingface.co/owner/name, then log in"),
        (hub_error(errors.RepositoryNotFoundError), "Check the spelling; if it is private, log in"),
        (hub_error(errors.RevisionNotFoundError), "it has no revision 'v9'"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "Set HF_HOME to a folder that you may write to"),
        (errors.LocalEntryNotFoundError("no"), "unset HF_HUB_OFFLINE"),
    ],
)
def test_what_the_hub_refuses(error: Exception, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_arguments: object, **_options: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="model='owner/name'") as caught:
        checkpoint_folder(LoadSpec(model="owner/name", revision="v9"))
    assert remedy in str(caught.value)


@pytest.mark.parametrize(("text", "remedy"), [(POINTER, "git lfs pull"), ("", "download it again")])
def test_a_chat_template_that_was_not_downloaded(copy: Path, text: str, remedy: str) -> None:
    (copy / "chat_template.jinja").write_text(text)
    message = refused(copy)
    assert "chat_template.jinja cannot be read" in message
    assert remedy in message


def test_weights_of_another_size_than_the_configuration_says(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"shapes are not those of config\.json") as caught:
        Engine(LoadSpec(model=str(copy))).load()
    assert "ignore_mismatched_sizes" not in str(caught.value)
