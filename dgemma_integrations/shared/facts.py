"""Facts from a checkpoint's small configuration files. Needs no weights, no network and no torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import resources
from typing import Any

from dgemma_core.api.aside import call_aside
from dgemma_core.api.load_spec import EMBEDDED, LoadSpec


@dataclass(frozen=True)
class CheckpointFacts:
    """Facts from ``config.json`` and ``generation_config.json``.

    Attributes:
        window: most tokens of prompt plus answer; None if the files do not say or are not on this machine.
        answer_tokens: default length of an answer in tokens; None in the same cases.
        vision: whether there is a vision tower, and a token that marks images.
    """

    window: int | None = None
    answer_tokens: int | None = None
    vision: bool = False


def checkpoint_facts(spec: LoadSpec) -> CheckpointFacts:
    """The facts of the checkpoint that an engine of this spec would load. Ignores ``spec.max_context``."""
    try:
        path = _config_path(spec)
        return CheckpointFacts() if path is None else _read(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError):
        return CheckpointFacts()


# Some frameworks make thousands of model objects per second, so each file is read once.
@lru_cache(maxsize=64)
def _read(path: str, _mtime_ns: int) -> CheckpointFacts:
    config = _load(path)
    window = config.get("text_config", {}).get("max_position_embeddings")
    vision = bool(config.get("vision_config")) and config.get("image_token_id") is not None
    try:
        length = _load(os.path.join(os.path.dirname(path), "generation_config.json")).get("max_new_tokens")
    except OSError:
        length = None
    return CheckpointFacts(
        window if isinstance(window, int) else None, length if isinstance(length, int) else None, vision
    )


def _load(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded


def _config_path(spec: LoadSpec) -> str | None:
    if spec.model == EMBEDDED:
        return _embedded_config()
    folder = os.path.expanduser(spec.model)
    if os.path.isdir(folder):
        return os.path.join(folder, "config.json")
    found = call_aside(partial(_cached_config, spec.model, spec.revision))
    return found if isinstance(found, str) else None


def _cached_config(model: str, revision: str | None) -> Any:
    from huggingface_hub import try_to_load_from_cache

    return try_to_load_from_cache(model, "config.json", revision=revision)


@lru_cache(maxsize=1)
def _embedded_config() -> str:
    return str(resources.files("dgemma_core") / "embedded" / "config.json")
