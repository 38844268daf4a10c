"""Log-probabilities as LangChain's OpenAI models give them, whole and in streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import GenerationChunk

from dgemma_core import Engine, Grammar
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
from tests.checkpoints import make_model, make_tokenizer

QUESTION = "The Halur bridge was built in 1907.\n\nWhen was the Halur bridge built?"
ASKED: dict[str, Any] = {"logprobs": True, "top_logprobs": 5}


@pytest.fixture
def chat(embedded_engine: Engine) -> ChatDiffusionGemma:
    return ChatDiffusionGemma(engine=embedded_engine, max_tokens=32)


@pytest.fixture
def llm(embedded_engine: Engine) -> DiffusionGemmaLLM:
    return DiffusionGemmaLLM(engine=embedded_engine, max_tokens=32)


@pytest.fixture(scope="module")
def held_chat() -> Iterator[ChatDiffusionGemma]:
    """Random weights in the causal mode: a grammar says what they write."""
    with Engine.from_model(make_model(seed=3, sharpness=0.3), make_tokenizer()) as engine:
        yield ChatDiffusionGemma(engine=engine, max_tokens=100, decoding="verified", **ASKED)


def content(message: AIMessage) -> list[dict[str, Any]]:
    return message.response_metadata["logprobs"]["content"]


def text(entries: list[dict[str, Any]]) -> str:
    return b"".join(bytes(entry["bytes"]) for entry in entries).decode()


def test_a_message_holds_openais_form(chat: ChatDiffusionGemma) -> None:
    message = chat.invoke(QUESTION, **ASKED)
    entries = content(message)
    assert text(entries) == message.text == "The Halur bridge was built in 1907."
    assert "".join(entry["token"] for entry in entries) == message.text
    assert len(entries) == message.usage_metadata["output_tokens"]
    for entry in entries:
        assert set(entry) == {"token", "bytes", "logprob", "top_logprobs"}
        assert len(entry["top_logprobs"]) == 5
        # Without a temperature the likeliest token is taken.
        assert entry["top_logprobs"][0] == {name: entry[name] for name in ("token", "bytes", "logprob")}
        assert [one["logprob"] for one in entry["top_logprobs"]] == sorted(
            (one["logprob"] for one in entry["top_logprobs"]), reverse=True
        )
    json.dumps(message.response_metadata)


def test_log_probabilities_are_those_of_a_forward_pass(chat: ChatDiffusionGemma) -> None:
    typed, verified = (content(chat.invoke(QUESTION, decoding=d, **ASKED)) for d in ("typewriter", "verified"))
    assert [entry["token"] for entry in typed] == [entry["token"] for entry in verified]
    for one, other in zip(typed, verified, strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-3)


def test_there_are_none_unless_they_are_asked_for(chat: ChatDiffusionGemma, llm: DiffusionGemmaLLM) -> None:
    assert "logprobs" not in chat.invoke(QUESTION).response_metadata
    assert all("logprobs" not in chunk.response_metadata for chunk in chat.stream(QUESTION))
    assert "logprobs" not in llm.generate([QUESTION]).generations[0][0].generation_info


def test_alternatives_are_optional(chat: ChatDiffusionGemma) -> None:
    assert all(entry["top_logprobs"] == [] for entry in content(chat.invoke(QUESTION, logprobs=True)))


async def test_every_method_gives_the_same(chat: ChatDiffusionGemma) -> None:
    asking = chat.model_copy(update=ASKED)
    expected = content(asking.invoke(QUESTION))
    found = [
        chat.bind(**ASKED).invoke(QUESTION),
        await asking.ainvoke(QUESTION),
        asking.batch([QUESTION])[0],
        (await asking.abatch([QUESTION]))[0],
        reduce(add, asking.stream(QUESTION)),
        reduce(add, [chunk async for chunk in asking.astream(QUESTION)]),
        asking.stream_events(QUESTION, version="v3").output,
    ]
    for message in found:
        tokens = content(message)
        assert [entry["token"] for entry in tokens] == [entry["token"] for entry in expected]
        assert [entry["logprob"] for entry in tokens] == pytest.approx([e["logprob"] for e in expected], abs=1e-3)


def test_a_chunk_has_the_tokens_of_its_text(chat: ChatDiffusionGemma) -> None:
    chunks = list(chat.stream(QUESTION, **ASKED))
    with_text = [chunk for chunk in chunks if chunk.text]
    assert len(with_text) > 1
    for chunk in with_text:
        assert text(content(chunk)) == chunk.text


def test_a_chat_model_that_streams_to_callbacks_reports_them(chat: ChatDiffusionGemma) -> None:
    message = chat.model_copy(update={"streaming": True}).invoke(QUESTION, **ASKED)
    assert text(content(message)) == message.text


@pytest.mark.parametrize("thought", ["", '<|channel> "thought\\n" /[a-z ]{4,40}/ <channel|> '], ids=["text", "thought"])
def test_tokens_of_reasoning_and_calls_are_left_out(held_chat: BaseChatModel, thought: str) -> None:
    grammar = Grammar.lark(f"start: {thought}/[A-Z]{{3,30}}/ <|tool_call> /call:(add|now)\\{{a:[1-9]\\}}/ <tool_call|>")
    whole = held_chat.invoke("x", grammar=grammar)
    streamed = reduce(add, held_chat.stream("x", grammar=grammar))
    for message in (whole, streamed):
        assert len(message.tool_calls) == 1
        assert message.text
        assert text(content(message)) == message.text


def test_a_stop_string_ends_them(chat: ChatDiffusionGemma) -> None:
    message = chat.invoke(QUESTION, stop=[" was"], **ASKED)
    assert message.text == "The Halur bridge"
    assert text(content(message)).startswith(message.text)
    assert "built" not in text(content(message))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_string_model_gives_the_form_of_completions(llm: DiffusionGemmaLLM, streaming: bool) -> None:
    (answer,) = llm.model_copy(update={"streaming": streaming}).generate([QUESTION], **ASKED).generations[0]
    found = answer.generation_info["logprobs"]
    assert "".join(found["tokens"]) == answer.text
    assert len(found["token_logprobs"]) == len(found["tokens"])
    for token, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        assert max(top.values()) == top[token] == logprob
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        assert answer.text[offset:].startswith(token)


async def test_a_string_models_chunks_add_up(llm: DiffusionGemmaLLM) -> None:
    (whole,) = llm.generate([QUESTION], **ASKED).generations[0]
    for chunks in (
        list(llm._stream(QUESTION, **ASKED)),
        [chunk async for chunk in llm._astream(QUESTION, **ASKED)],
    ):
        merged: GenerationChunk = reduce(add, chunks)
        found, expected = merged.generation_info["logprobs"], whole.generation_info["logprobs"]
        assert found["tokens"] == expected["tokens"]
        assert found["text_offset"] == expected["text_offset"]
        assert found["token_logprobs"] == pytest.approx(expected["token_logprobs"], abs=1e-3)


@pytest.mark.parametrize("kind", [ChatDiffusionGemma, DiffusionGemmaLLM])
def test_a_denoised_answer_has_none_and_says_so(kind: Any) -> None:
    with pytest.raises(ValueError, match="logprobs=True has no meaning with decoding='diffusion'"):
        kind(decoding="diffusion", logprobs=True)
    with pytest.raises(ValueError, match="logprobs=True has no meaning with decoding='diffusion'"):
        kind(decoding="diffusion").invoke("x", logprobs=True)
    with pytest.raises(ValueError, match="top_logprobs=3: set logprobs=True"):
        kind(top_logprobs=3)


def test_a_call_can_turn_them_off(chat: ChatDiffusionGemma) -> None:
    asking = chat.model_copy(update=ASKED)
    assert "logprobs" not in asking.invoke(QUESTION, logprobs=False).response_metadata
