"""What a model object says it can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgemma_core import LoadSpec
from dgemma_integrations.langchain import ChatDiffusionGemma
from dgemma_integrations.langchain.profile import model_profile


def test_profile_comes_from_the_config_alone(tiny_checkpoint: str) -> None:
    # Settings no other test has, so that the engine is a new one.
    chat = ChatDiffusionGemma(model=tiny_checkpoint, max_context=4000)
    assert chat.profile["max_input_tokens"] == 2048 == chat._engine().context_window
    assert chat._engine().stats().weight_loads == 0
    assert ChatDiffusionGemma(model=tiny_checkpoint, max_context=128).profile["max_input_tokens"] == 128
    assert chat.profile["tool_calling"]
    assert chat.profile["structured_output"]
    assert not chat.profile["audio_inputs"]
    assert "max_input_tokens" not in ChatDiffusionGemma(model="no/such-model").profile


def test_profile_of_the_embedded_checkpoint() -> None:
    assert shown(model_profile(LoadSpec())) == (True, False, True)
    assert shown(model_profile(LoadSpec(), allow_image_urls=True)) == (True, True, True)
    profile = ChatDiffusionGemma(allow_image_urls=True).profile
    assert profile is not None
    assert shown(profile) == (True, True, True)


@pytest.mark.parametrize("spoilt", ["vision_config", "image_token_id"])
def test_profile_of_a_checkpoint_without_eyes(tiny_checkpoint: str, tmp_path: Path, spoilt: str) -> None:
    config = json.loads((Path(tiny_checkpoint) / "config.json").read_text())
    assert shown(model_profile(LoadSpec(model=tiny_checkpoint))) == (True, False, True)
    (tmp_path / "config.json").write_text(json.dumps(config | {spoilt: None}))
    assert shown(model_profile(LoadSpec(model=str(tmp_path)), allow_image_urls=True)) == (False, False, False)
    assert shown(model_profile(LoadSpec(model="owner/never-downloaded"))) == (False, False, False)


def shown(profile: Any) -> tuple[bool, bool, bool]:
    return profile["image_inputs"], profile["image_url_inputs"], profile["image_tool_message"]
