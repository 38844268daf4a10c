"""``ModelProfile`` of a checkpoint, from its configuration files. Needs no weights, no network and no torch."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING

from dgemma_core.api.load_spec import LoadSpec
from dgemma_integrations.shared.facts import checkpoint_facts

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile


def model_profile(spec: LoadSpec, *, allow_image_urls: bool = False) -> ModelProfile:
    """The profile of a model object. Context window and images need the checkpoint's config on this machine.

    Args:
        spec: of the engine.
        allow_image_urls: whether the model object downloads images.
    """
    facts = checkpoint_facts(spec)
    images = facts.vision and _pillow_installed()
    profile: ModelProfile = {
        "name": spec.model,
        "open_weights": True,
        "text_inputs": True,
        "text_outputs": True,
        "image_inputs": images,
        "image_url_inputs": images and allow_image_urls,
        # Gemma 4's chat template writes a tool's images after its text. With another template a call raises an error.
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


@lru_cache(maxsize=1)
def _pillow_installed() -> bool:
    return importlib.util.find_spec("PIL") is not None
