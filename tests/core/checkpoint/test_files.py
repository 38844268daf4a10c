"""Where a checkpoint's files lie, and that only safe ones are taken."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from dgemma_core import LoadSpec
from dgemma_core.checkpoint.files import check_weight_files, checkpoint_folder
from dgemma_core.errors import CheckpointError


def test_the_embedded_checkpoint_is_inside_the_package() -> None:
    folder = checkpoint_folder(LoadSpec())
    assert (folder / "config.json").is_file()
    assert folder.parent.name == "dgemma_core"


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint_folder(LoadSpec(model=str(tmp_path)), weights=True) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert checkpoint_folder(LoadSpec(model="~/mine")) == tmp_path / "mine"


@pytest.mark.parametrize("model", ["/no/such", "./no/such", "~/no/such", "nothing", "a/b/c"])
def test_what_is_no_hub_id_is_not_looked_for_there(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_a, **_o: pytest.fail("looked for on the Hub"))
    with pytest.raises(CheckpointError, match="no such folder, and not a Hub id"):
        checkpoint_folder(LoadSpec(model=model))


@pytest.mark.parametrize("weights", [False, True])
def test_only_what_is_wanted_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: bool) -> None:
    asked: list[tuple[str, str | None, list[str]]] = []

    def download(model: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((model, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert checkpoint_folder(LoadSpec(model="owner/name", revision="v1"), weights=weights) == tmp_path
    ((model, revision, patterns),) = asked
    assert (model, revision) == ("owner/name", "v1")
    assert ("*.safetensors" in patterns) is weights
    assert not any(name.endswith((".bin", ".py", ".pt", ".ckpt")) or name == "*" for name in patterns)


def test_a_broken_connection_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [ConnectionError("reset"), TimeoutError("slow")]

    def download(*_arguments: object, **_options: object) -> str:
        if failures:
            raise failures.pop()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    assert checkpoint_folder(LoadSpec(model="owner/name")) == tmp_path
    assert not failures


@pytest.mark.parametrize(
    ("error", "words"), [(ConnectionError("reset"), "cannot be reached"), (OSError("disk full"), "disk full")]
)
def test_what_the_hub_does_not_give_is_told(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_arguments: object, **_options: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoint_folder(LoadSpec(model="owner/name"))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_weights_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=f"pickled weights only .{name}"):
        check_weight_files(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    check_weight_files(tmp_path)


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"looked for \*\.safetensors"):
        check_weight_files(tmp_path)
