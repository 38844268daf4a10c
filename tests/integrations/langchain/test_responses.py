"""Reasoning, text and calls in messages, in chunks and in protocol events (``stream_events(version="v3")``)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream

from dgemma_core import DraftEvent, Engine, Grammar
from dgemma_integrations.langchain import ChatDiffusionGemma
from tests.checkpoints import make_model, make_tokenizer
from tests.helpers.waiting import idle, wait_for

THOUGHT = '<|channel> "thought\\n" /[a-z ]{4,40}/ <channel|>'
TEXT = "/[A-Z]{3,30}/"
CALL = "<|tool_call> /call:(add|now)\\{a:[1-9]\\}/ <tool_call|>"

# What the grammar makes any weights write, and the blocks that must come of it.
SHAPES = [
    pytest.param(f"start: {TEXT}", ["text"], id="text"),
    pytest.param(f"start: {THOUGHT} {TEXT}", ["reasoning", "text"], id="thought-text"),
    pytest.param(f"start: {CALL}", ["tool_call"], id="call"),
    pytest.param(f"start: {THOUGHT} {CALL}", ["reasoning", "tool_call"], id="thought-call"),
    pytest.param(f"start: {TEXT} {CALL} {CALL}", ["text", "tool_call", "tool_call"], id="text-calls"),
    pytest.param(
        f"start: {THOUGHT} {TEXT} {CALL} {CALL}", ["reasoning", "text", "tool_call", "tool_call"], id="everything"
    ),
    pytest.param(f"start: {TEXT} {THOUGHT} {CALL}", ["text", "reasoning", "tool_call"], id="text-thought-call"),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.from_model(make_model(seed=3, sharpness=0.3), make_tokenizer()) as engine:
        yield engine


@pytest.fixture
def chat(engine: Engine) -> ChatDiffusionGemma:
    # Canvases of eight: most blocks span several.
    return ChatDiffusionGemma(engine=engine, max_tokens=160, max_denoising_steps=2, canvas_length=8, seed=0)


def bare(block: Any) -> dict[str, Any]:
    """A content block without its number and the call's own id."""
    return {name: value for name, value in block.items() if name not in ("index", "id", "extras")}


def blocks(message: AIMessage) -> list[dict[str, Any]]:
    return [bare(block) for block in message.content_blocks]


@pytest.mark.parametrize("output_version", ["v0", "v1"])
@pytest.mark.parametrize(("grammar", "kinds"), SHAPES)
async def test_streams_add_up_to_the_whole(
    engine: Engine, chat: ChatDiffusionGemma, grammar: str, kinds: list[str], output_version: str
) -> None:
    model = chat.model_copy(update={"output_version": output_version}).bind(grammar=Grammar.lark(grammar))
    whole = model.invoke("fox")
    assert sorted(block["type"] for block in whole.content_blocks) == sorted(kinds)
    chunks = list(model.stream("fox"))
    for joined in (reduce(add, chunks), reduce(add, [chunk async for chunk in model.astream("fox")])):
        assert isinstance(joined, AIMessageChunk)
        assert [block["type"] for block in joined.content_blocks] == kinds
        # invoke has thoughts first, a stream has them where they came.
        assert sorted(map(str, blocks(joined))) == sorted(map(str, blocks(whole)))
        assert joined.text == whole.text
        assert [c["args"] for c in joined.tool_calls] == [c["args"] for c in whole.tool_calls]
        assert len({c["id"] for c in joined.tool_calls}) == len(joined.tool_calls)
        assert joined.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]
        assert joined.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]
        assert joined.response_metadata["model_provider"] == "diffusiongemma"
    # Numbers and names are merged by adding: only one chunk may have them.
    told = [chunk for chunk in chunks if "model_name" in chunk.response_metadata or chunk.usage_metadata]
    assert [chunk.chunk_position for chunk in told] == ["last"]


@pytest.mark.parametrize(("grammar", "kinds"), SHAPES)
async def test_protocol_events(chat: ChatDiffusionGemma, grammar: str, kinds: list[str]) -> None:
    bound = {"grammar": Grammar.lark(grammar)}
    whole = chat.invoke("fox", **bound)
    stream = chat.stream_events("fox", version="v3", **bound)
    seen = list(stream)
    awaited = await chat.astream_events("fox", version="v3", **bound)
    for events, output in ((seen, stream.output), ([e async for e in awaited], await awaited.output)):
        assert_valid_event_stream(events)
        assert events[0]["metadata"] == {"provider": "diffusiongemma", "model": chat.model}
        assert events[0]["id"] == output.id
        finished = [event["content"]["type"] for event in events if event["event"] == "content-block-finish"]
        assert finished == kinds == [block["type"] for block in output.content_blocks]
        assert sorted(map(str, blocks(output))) == sorted(map(str, blocks(whole)))
        assert output.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]
        assert set(output.response_metadata) == set(whole.response_metadata) | {"output_version"}
    assert str(stream.text) == whole.text
    reasoning = [block["reasoning"] for block in whole.content_blocks if block["type"] == "reasoning"]
    assert str(stream.reasoning) == "".join(reasoning)


def test_reasoning_is_counted(engine: Engine, chat: ChatDiffusionGemma) -> None:
    plain = chat.invoke("fox", grammar=Grammar.lark(f"start: {TEXT}"))
    assert plain.usage_metadata["output_token_details"] == {"reasoning": 0}
    thoughtful = chat.invoke("fox", grammar=Grammar.lark(f"start: {THOUGHT} {TEXT}"))
    reasoning = next(block["reasoning"] for block in thoughtful.content_blocks if block["type"] == "reasoning")
    count = thoughtful.usage_metadata["output_token_details"]["reasoning"]
    # Two control tokens and the header come on top; the model may spell a word in more tokens than the tokenizer.
    assert count >= 2 + len(engine.encode_text(f"thought\n{reasoning}"))
    assert count < thoughtful.usage_metadata["output_tokens"]


def test_reasoning_comes_before_the_answer_is_there(chat: ChatDiffusionGemma) -> None:
    kinds = [
        block["type"]
        for chunk in chat.stream("fox", grammar=Grammar.lark(f"start: {THOUGHT} /[A-Z]{{40,60}}/"))
        for block in chunk.content_blocks
    ]
    assert kinds[0] == "reasoning"
    assert kinds.count("text") > 1


async def test_drafts_as_protocol_events(chat: ChatDiffusionGemma) -> None:
    plain = chat.invoke("fox").text
    assert not any(e["event"] == "draft" for e in chat.stream_events("fox", version="v3"))
    seen: list[DraftEvent] = []
    stream = chat.stream_events("fox", version="v3", draft_events=True, on_draft=seen.append)
    events = list(stream)
    assert_valid_event_stream(events)
    drafts = [event for event in events if event["event"] == "draft"]
    assert len(drafts) == stream.output.response_metadata["denoising_steps"] == len(seen)
    assert [(draft["text"], draft["step"]) for draft in drafts] == [(draft.text, draft.step) for draft in seen]
    assert all(len(draft["entropy"]) == 8 for draft in drafts)
    assert stream.output.text == plain

    watched = chat.model_copy(update={"draft_events": True})
    awaited = await watched.astream_events("fox", version="v3")
    assert len([e async for e in awaited if e["event"] == "draft"]) == len(drafts)
    # Everywhere else they are not asked for.
    assert watched.invoke("fox").text == plain == "".join(chunk.text for chunk in watched.stream("fox"))
    with pytest.raises(ValueError, match="draft_events='yes'"):
        chat.invoke("fox", draft_events="yes")


async def test_leaving_protocol_events_frees_the_engine(engine: Engine, chat: ChatDiffusionGemma) -> None:
    cancelled = engine.stats().cancelled
    stream = await chat.astream_events(
        "fox", version="v3", max_tokens=1000, grammar=Grammar.regex("[a-z]{900,950}"), draft_events=True
    )
    async for event in stream:
        if event["event"] == "draft":
            break
    await stream.aclose()
    await asyncio.to_thread(wait_for, lambda: idle(engine))
    assert engine.stats().cancelled == cancelled + 1


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: str, **_: Any) -> None:
        self.tokens.append(token)


def test_protocol_events_report_tokens_once(chat: ChatDiffusionGemma) -> None:
    tokens = Tokens()
    text = chat.stream_events("fox", {"callbacks": [tokens]}, version="v3").output.text
    assert "".join(tokens.tokens) == text != ""
