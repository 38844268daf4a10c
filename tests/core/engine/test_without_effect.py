"""A setting that cannot have the effect that was asked for is told in one line of the log."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from dgemma_core import Engine, LoadSpec, Message, SamplingParams
from tests.checkpoints import make_model, make_tokenizer

HELLO = [Message("user", "fox")]


def run(model: str, **settings: Any) -> None:
    with Engine(LoadSpec(model=model, device="cpu", **settings)) as engine:
        for _ in range(2):
            engine.generate([[2, 50, 51]], SamplingParams(max_new_tokens=3))


def test_ordinary_settings_are_told_nothing_of(tiny_checkpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "dgemma_core")
    run(tiny_checkpoint, max_context=2048, max_batch_tokens=16, prefix_cache_bytes=2**20)
    run(tiny_checkpoint, prefix_cache_bytes=0, max_context=64)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"max_context": 2049}, "max_context=2049: the checkpoint's context window holds 2048 tokens"),
        ({"max_batch_tokens": 15}, "max_batch_tokens=15: a canvas of this checkpoint has 16 tokens"),
        ({"prefix_cache_bytes": 10}, "prefix_cache_bytes=10: keys and values of one token take"),
        ({"prefix_cache_bytes": 10**15}, f"prefix_cache_bytes={10**15}: the device has "),
    ],
)
def test_a_limit_that_the_checkpoint_or_machine_does_not_follow(
    tiny_checkpoint: str, caplog: pytest.LogCaptureFixture, settings: dict[str, int], line: str
) -> None:
    caplog.set_level(logging.WARNING, "dgemma_core")
    run(tiny_checkpoint, **settings)
    (told,) = caplog.messages
    assert told.startswith(line)


def test_a_window_wider_than_a_given_models(caplog: pytest.LogCaptureFixture) -> None:
    with Engine.from_model(make_model(), make_tokenizer(), max_context=9000) as engine:
        assert engine.context_window == 2048
    (told,) = caplog.messages
    assert told.startswith("max_context=9000: ")


def test_a_template_without_a_place_for_tools_or_thoughts(
    tiny_checkpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    caplog.set_level(logging.WARNING, "dgemma_core")
    with Engine(LoadSpec(model=tiny_checkpoint)) as engine:
        for _ in range(2):
            engine.count_tokens(HELLO, [tool])
            engine.count_tokens(HELLO, thinking=True)
    assert [line.split(":")[0] for line in caplog.messages] == ["tools", "thinking=True"]


def test_a_template_with_places_for_both(embedded_engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    caplog.set_level(logging.WARNING, "dgemma_core")
    embedded_engine.count_tokens(HELLO, [tool], thinking=True)
    assert not caplog.messages


def test_messages_without_a_chat_template(tiny_checkpoint: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (folder / "chat_template.jinja").unlink()
    with Engine(LoadSpec(model=str(folder))) as engine:
        assert engine.count_tokens("fox")
        with pytest.raises(ValueError, match="no chat template, so it takes no messages: give the prompt as a text"):
            engine.submit(HELLO)
