"""What is wrong with a ``model`` that is neither a folder nor a Hub id, in a sentence with the remedy."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from dgemma_core.api.load_spec import EMBEDDED

_EXAMPLE = "google/diffusiongemma-26B-A4B-it"
_TAGGED = re.compile(r"[\w.-]+(/[\w.-]+)*:[\w.-]+")  # such as llama3:8b


def advice(model: str) -> str:
    """What to write instead of a ``model`` that names nothing."""
    stripped = model.strip()
    try:
        path = Path(stripped).expanduser()
    except RuntimeError:  # There is no such user, or no home.
        return "Its home folder is not known: give the whole path."
    if stripped.lower().endswith(".gguf"):
        return f"GGUF files are not read: give a Hub id or a folder with safetensors, e.g. {_EXAMPLE!r}."
    if _is(path, "file"):
        return f"It is a file: give its folder, {str(path.parent)!r}."
    if "huggingface.co/" in stripped or "hf.co/" in stripped:
        parts = re.split(r"h(?:uggingface|f)\.co/", stripped, maxsplit=1)[1].split("/")
        return f"It is an address: give the Hub id alone, {'/'.join(parts[:2])!r}."
    if stripped.lower().strip("/") == EMBEDDED:
        return f"Write {EMBEDDED!r}."
    if stripped != model:
        return f"It has blanks around it: write {stripped!r}."
    if _TAGGED.fullmatch(stripped) and not _drive(stripped):
        return (
            "A name with a tag after a colon is one of Ollama's, whose models are GGUF files: give 'embedded', a Hub "
            f"id such as {_EXAMPLE!r}, or a folder."
        )
    near = near_folder(path) or next(iter(difflib.get_close_matches(stripped.lower(), [EMBEDDED], cutoff=0.75)), None)
    hint = f"Did you mean {near!r}? " if near else ""
    return f"{hint}Give 'embedded', an existing folder, or e.g. {_EXAMPLE!r}."


def near_folder(path: Path) -> str | None:
    """An existing folder with nearly the same name, in the same place."""
    if not path.name or not _is(path.parent, "dir"):
        return None
    try:
        beside = [item.name for item in path.parent.iterdir() if _is(item, "dir")]
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, beside, n=1)
    return str(path.parent / close[0]) if close else None


def _is(path: Path, kind: str) -> bool:
    try:
        return path.is_file() if kind == "file" else path.is_dir()
    except (OSError, ValueError):  # A name that is too long, or not allowed.
        return False


def _drive(model: str) -> bool:
    """Whether it begins like ``C:``."""
    return len(model.split(":")[0]) == 1
