"""What is wrong with a checkpoint's folder or with one of its files, in a sentence that ends with the remedy."""

from __future__ import annotations

from pathlib import Path

_POINTER = b"version https://git-lfs"


def problem_of(path: Path) -> str | None:
    """Why a file cannot be what its name says, with the remedy. None if its beginning looks right."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"{path.name} cannot be opened ({error.strerror or error}); check its permissions"
    if head.startswith(_POINTER):
        return (
            f"{path.name} is a git-LFS pointer, a text that stands for the file; run `git lfs pull` in its folder, or "
            "download with `hf download`"
        )
    if not head:
        return f"{path.name} is empty; download it again"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return f"{path.name} is a web page, not the file; download it again"
    return None


def without_config(folder: Path) -> str:
    """Why a folder without ``config.json`` is no checkpoint, with the remedy."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"it cannot be listed ({error.strerror or error}); check its permissions"
    if any(name.lower().endswith(".gguf") for name in names):
        return (
            "it holds GGUF files, which are not read; give a Hub id or a folder with safetensors, such as "
            "model='google/diffusiongemma-26B-A4B-it'"
        )
    if "adapter_config.json" in names:
        return "it holds a LoRA adapter; merge it into its base model and save the whole model"
    inside = [path.parent for pattern in ("*/", "snapshots/*/") for path in folder.glob(f"{pattern}config.json")]
    if inside:
        return f"one of its folders has; did you mean model={str(inside[0])!r}?"
    if not names:
        return "it is empty; download the checkpoint into it, for example with `hf download`"
    return "point `model` at a folder with a DiffusionGemma checkpoint: config.json, tokenizer.json and safetensors"
