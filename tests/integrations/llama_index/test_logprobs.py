"""Log-probabilities in LlamaIndex's form, from all eight endpoints."""

from __future__ import annotations

import math
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatResponse, LogProb
from llama_index.core.llms import ChatMessage

from dgemma_core import Engine
from dgemma_integrations.llama_index import DiffusionGemma

QUESTION = "The Halur bridge was built in 1907.\n\nWhen was the Halur bridge built?"
CHAT = [ChatMessage(role="user", content=QUESTION)]
ANSWER = "The Halur bridge was built in 1907."
ASKED: dict[str, Any] = {"logprobs": True, "top_logprobs": 3}


@pytest.fixture
def llm(embedded_engine: Engine) -> DiffusionGemma:
    return DiffusionGemma(engine=embedded_engine, max_tokens=32)


def text(logprobs: list[list[LogProb]] | None) -> str:
    assert logprobs is not None
    return b"".join(bytes(token[0].bytes) for token in logprobs).decode()


def test_a_token_is_followed_by_its_alternatives(llm: DiffusionGemma) -> None:
    response = llm.chat(CHAT, **ASKED)
    assert text(response.logprobs) == response.message.content == ANSWER
    for token in response.logprobs or []:
        assert len(token) == 3
        assert [one.logprob for one in token] == sorted((one.logprob for one in token), reverse=True)
        assert sum(math.exp(one.logprob) for one in token) <= 1.0001


def test_a_drawn_token_comes_first_though_others_are_likelier(llm: DiffusionGemma) -> None:
    response = llm.chat([ChatMessage(role="user", content="Say anything.")], temperature=3.0, seed=1, **ASKED)
    assert response.logprobs
    assert any(token[0].logprob < token[1].logprob for token in response.logprobs)
    assert text(response.logprobs) == response.message.content


async def test_every_endpoint_gives_them(llm: DiffusionGemma) -> None:
    found: list[Any] = [
        llm.chat(CHAT, **ASKED),
        llm.complete(QUESTION, **ASKED),
        await llm.achat(CHAT, **ASKED),
        await llm.acomplete(QUESTION, **ASKED),
    ]
    assert [text(response.logprobs) for response in found] == [ANSWER] * 4
    streams: list[list[Any]] = [
        list(llm.stream_chat(CHAT, **ASKED)),
        list(llm.stream_complete(QUESTION, **ASKED)),
        [chunk async for chunk in await llm.astream_chat(CHAT, **ASKED)],
        [chunk async for chunk in await llm.astream_complete(QUESTION, **ASKED)],
    ]
    for chunks in streams:
        assert len(chunks) > 2
        assert [text(chunk.logprobs) for chunk in chunks] == [chunk.delta for chunk in chunks]
        assert "".join(text(chunk.logprobs) for chunk in chunks) == ANSWER


def test_a_stream_with_drafts_has_them_in_its_text_chunks(llm: DiffusionGemma) -> None:
    chunks = list(llm.stream_chat(CHAT, drafts=True, **ASKED))
    drafts = [chunk for chunk in chunks if "draft" in chunk.additional_kwargs]
    assert drafts
    assert all(chunk.logprobs is None for chunk in drafts)
    assert "".join(text(chunk.logprobs) for chunk in chunks if chunk not in drafts) == ANSWER


def test_there_are_none_unless_they_are_asked_for(llm: DiffusionGemma) -> None:
    assert llm.chat(CHAT).logprobs is None
    assert all(chunk.logprobs is None for chunk in llm.stream_complete(QUESTION))


def test_a_response_goes_through_json(llm: DiffusionGemma) -> None:
    response = llm.chat(CHAT, **ASKED)
    assert ChatResponse.model_validate_json(response.model_dump_json()).logprobs == response.logprobs


def test_a_denoised_answer_has_none_and_says_so(llm: DiffusionGemma) -> None:
    with pytest.raises(ValueError, match="logprobs=True has no meaning with decoding='diffusion'"):
        DiffusionGemma(decoding="diffusion", logprobs=True)
    with pytest.raises(ValueError, match="logprobs=True has no meaning with decoding='diffusion'"):
        llm.chat(CHAT, decoding="diffusion", logprobs=True)
