"""``ModelProfile`` of a checkpoint, from its ``config.json`` alone: no weights, no network, no torch."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from dgemma_core.spec import EMBEDDED, LoadSpec

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile


def model_profile(spec: LoadSpec) -> ModelProfile:
    """What the model object can do, and its context window where the checkpoint's config is on this machine."""
    profile: ModelProfile = {
        "name": spec.model,
        "open_weights": True,
        "text_inputs": True,
        "text_outputs": True,
        "image_inputs": False,
        "image_url_inputs": False,
        "image_tool_message": False,
        "pdf_inputs": False,
        "pdf_tool_message": False,
        "audio_inputs": False,
        "video_inputs": False,
        "image_outputs": False,
        "audio_outputs": False,
        "video_outputs": False,
        "reasoning_output": True,
        "tool_calling": True,
        "tool_choice": True,
        "structured_output": True,
        "temperature": True,
    }
    windows = [window for window in (spec.max_context, _context_window(spec)) if window is not None]
    if windows:
        profile["max_input_tokens"] = profile["max_output_tokens"] = min(windows)
    return profile


def _context_window(spec: LoadSpec) -> int | None:
    path = _config_path(spec)
    try:
        return None if path is None else _read_window(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError):
        return None


# Model objects are made thousands of times per second by some frameworks: read each config once.
@lru_cache(maxsize=64)
def _read_window(path: str, _mtime_ns: int) -> int | None:
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    window = config.get("text_config", {}).get("max_position_embeddings")
    return window if isinstance(window, int) else None


def _config_path(spec: LoadSpec) -> str | None:
    if spec.model == EMBEDDED:
        return _embedded_config()
    folder = os.path.expanduser(spec.model)
    if os.path.isdir(folder):
        return os.path.join(folder, "config.json")
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(spec.model, "config.json", revision=spec.revision)
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1)
def _embedded_config() -> str:
    return str(resources.files("dgemma_core") / "embedded" / "config.json")
