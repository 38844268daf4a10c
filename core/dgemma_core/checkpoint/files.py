"""Finds a checkpoint's files: inside this package, in a local folder, or on the Hub."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from dgemma_core.api.load_spec import EMBEDDED, LoadSpec
from dgemma_core.checkpoint.hub_errors import download_problem
from dgemma_core.checkpoint.model_names import advice, near_folder
from dgemma_core.errors import CheckpointError

SMALL_FILES = ("*.json", "*.jinja", "*.model", "tokenizer*")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def checkpoint_folder(spec: LoadSpec, *, weights: bool = False) -> Path:
    """The folder with the checkpoint's files. They are downloaded if the checkpoint is on the Hub.

    Args:
        spec: which checkpoint.
        weights: download the weights, too.

    Raises:
        CheckpointError: no such folder, or the download failed.
    """
    if spec.model == EMBEDDED:
        _refuse_revision(spec, "is inside the package")
        return Path(str(importlib.resources.files("dgemma_core") / "embedded"))
    if local := _local_folder(spec.model):
        _refuse_revision(spec, "is a local folder")
        return local
    if not _is_hub_id(spec.model):
        raise CheckpointError(
            f"model={spec.model!r}: no such folder, and not a Hub id of the form 'owner/name'. {advice(spec.model)}"
        )
    return _download(spec, [*SMALL_FILES, *WEIGHT_FILES] if weights else [*SMALL_FILES])


def is_local(spec: LoadSpec) -> bool:
    """Whether the checkpoint is on this machine whole, so that nothing has to be downloaded."""
    return spec.model == EMBEDDED or _local_folder(spec.model) is not None


def _local_folder(model: str) -> Path | None:
    try:
        # Without a home folder, expanduser() raises a RuntimeError.
        local = Path(model).expanduser()
        return local if local.is_dir() else None
    except PermissionError as error:
        raise CheckpointError(
            f"model={model!r}: the folder cannot be opened ({error}); check its permissions"
        ) from error
    except (OSError, ValueError, RuntimeError):  # No name of a file: too long, or with a zero byte.
        return None


def _is_hub_id(model: str) -> bool:
    """Whether a name has the form of a Hub id, so that the Hub can be asked."""
    if model.startswith((".", "~", "/")) or model.count("/") != 1 or model.lower().endswith(".gguf"):
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True


def _refuse_revision(spec: LoadSpec, where: str) -> None:
    if spec.revision is not None:
        raise CheckpointError(
            f"revision={spec.revision!r}: model={spec.model!r} {where}, and only a Hub id has revisions; leave "
            "revision out"
        )


def _download(spec: LoadSpec, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    retrying = Retrying(
        retry=retry_if_exception_type((ConnectionError, TimeoutError)),
        stop=stop_after_attempt(4),
        wait=wait_exponential(multiplier=1, max=20),
        reraise=True,
    )
    try:
        return Path(retrying(snapshot_download, spec.model, revision=spec.revision, allow_patterns=patterns))
    except Exception as error:
        near = near_folder(Path(spec.model))
        hint = f" Or did you mean the folder {near!r}?" if near else ""
        raise CheckpointError(download_problem(spec.model, spec.revision, error) + hint) from error


def check_weight_files(folder: Path) -> None:
    """Refuse a folder without safetensors.

    Raises:
        CheckpointError: no weights, or pickled ones only.
    """
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} holds pickled weights only ({', '.join(pickles[:3])}); unpickling can run code, so only "
            "safetensors are loaded. Convert them with `model.save_pretrained(folder)` in an environment you trust."
        )
    raise CheckpointError(f"{folder} has a config.json but no weights: looked for *.safetensors; download them into it")
