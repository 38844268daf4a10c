"""Finds a checkpoint's files: inside this package, in a local folder, or on the Hub."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from dgemma_core.api.load_spec import EMBEDDED, LoadSpec
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
        return Path(str(importlib.resources.files("dgemma_core") / "embedded"))
    local = Path(spec.model).expanduser()
    if local.is_dir():
        return local
    if local.is_absolute() or spec.model.startswith((".", "~")) or spec.model.count("/") != 1:
        raise CheckpointError(
            f"model={spec.model!r}: no such folder, and not a Hub id of the form 'owner/name'. "
            "Give 'embedded', an existing folder, or e.g. 'google/diffusiongemma-26B-A4B-it'."
        )
    return _download(spec, [*SMALL_FILES, *WEIGHT_FILES] if weights else [*SMALL_FILES])


def _download(spec: LoadSpec, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    retrying = Retrying(
        retry=retry_if_exception_type((ConnectionError, TimeoutError)),
        stop=stop_after_attempt(4),
        wait=wait_exponential(multiplier=1, max=20),
        reraise=True,
    )
    try:
        return Path(retrying(snapshot_download, spec.model, revision=spec.revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
        raise CheckpointError(
            f"model={spec.model!r} is not a local folder, not in the Hugging Face cache, and the Hub cannot be "
            "reached. Check the network (or unset HF_HUB_OFFLINE), download it elsewhere and give its folder, or use "
            "model='embedded'."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"model={spec.model!r} (revision {spec.revision or 'main'}) could not be fetched from the Hub: {error}. "
            "Check the spelling, and `hf auth login` if the repository is gated."
        ) from error


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
    raise CheckpointError(f"{folder} has a config.json but no weights: looked for *.safetensors")
