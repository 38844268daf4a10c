"""``ModelProfile`` of a checkpoint, from its ``config.json`` alone: no weights, no network, no torch."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from dgemma_core.spec import EMBEDDED, LoadSpec

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile


def model_profile(spec: LoadSpec, *, allow_image_urls: bool = False) -> ModelProfile:
    """What the model object can do; its context window and eyes where the checkpoint's config is on this machine.

    Args:
        spec: of the engine.
        allow_image_urls: whether the model object downloads images.
    """
    facts = _facts(spec)
    images = facts.vision and _pillow_installed()
    profile: ModelProfile = {
        "name": spec.model,
        "open_weights": True,
        "text_inputs": True,
        "text_outputs": True,
        "image_inputs": images,
        "image_url_inputs": images and allow_image_urls,
        # Gemma 4's chat template writes a tool's images behind its text; with one that does not, a call says so.
        "image_tool_message": images,
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
    windows = [window for window in (spec.max_context, facts.window) if window is not None]
    if windows:
        profile["max_input_tokens"] = profile["max_output_tokens"] = min(windows)
    return profile


@dataclass(frozen=True)
class _Facts:
    """What a config says: tokens of prompt plus answer, and whether there is a vision tower the tokenizer can mark."""

    window: int | None = None
    vision: bool = False


def _facts(spec: LoadSpec) -> _Facts:
    path = _config_path(spec)
    try:
        return _Facts() if path is None else _read_facts(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError):
        return _Facts()


# Model objects are made thousands of times per second by some frameworks: read each config once.
@lru_cache(maxsize=64)
def _read_facts(path: str, _mtime_ns: int) -> _Facts:
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    window = config.get("text_config", {}).get("max_position_embeddings")
    vision = bool(config.get("vision_config")) and config.get("image_token_id") is not None
    return _Facts(window if isinstance(window, int) else None, vision)


@lru_cache(maxsize=1)
def _pillow_installed() -> bool:
    return importlib.util.find_spec("PIL") is not None


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
