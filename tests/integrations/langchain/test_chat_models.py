"""The four ways to ask the chat model."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from dgemma_core import Engine
from dgemma_integrations.langchain import (
    ChatDiffusionGemma,
    DiffusionGemmaLLM,
)
from tests.helpers.waiting import idle
from tests.integrations.langchain.conftest import METADATA, PROMPT


async def test_all_four_ways_give_the_same_answer(chat: ChatDiffusionGemma) -> None:
    answer = chat.invoke(PROMPT)
    assert answer.text
    assert (await chat.ainvoke(PROMPT)).text == answer.text
    for chunks in (list(chat.stream(PROMPT)), [chunk async for chunk in chat.astream(PROMPT)]):
        merged = reduce(add, chunks)
        assert isinstance(merged, AIMessageChunk)
        assert len(chunks) >= 3
        assert merged.text == answer.text
        assert merged.usage_metadata["output_tokens"] == answer.usage_metadata["output_tokens"]
        assert merged.usage_metadata["input_tokens"] == answer.usage_metadata["input_tokens"]
        for name in METADATA - {"timings", "tokens_per_s"}:
            assert merged.response_metadata[name] == answer.response_metadata[name], name
        assert all(not chunk.response_metadata and chunk.usage_metadata is None for chunk in chunks[:-1])
        assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]


def test_usage_and_metadata(chat: ChatDiffusionGemma) -> None:
    chat.invoke(PROMPT)
    counter = UsageMetadataCallbackHandler()
    answer = chat.invoke(PROMPT, config={"callbacks": [counter]})
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] == chat.get_num_tokens_from_messages(_human(PROMPT))
    assert usage["output_tokens"] == 40
    assert 0 < usage["input_token_details"]["cache_read"] < usage["input_tokens"]
    assert set(answer.response_metadata) == METADATA
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.response_metadata["model_name"] == chat.model
    assert answer.response_metadata["model_provider"] == "diffusiongemma"
    assert counter.usage_metadata[chat.model]["output_tokens"] == usage["output_tokens"]


def _human(text: str) -> list[Any]:
    return ChatPromptTemplate.from_messages([("human", "{text}")]).format_messages(text=text)


def test_token_counts(chat: ChatDiffusionGemma, llm: DiffusionGemmaLLM, engine: Engine) -> None:
    text = "lazy dog <|turn>"
    assert chat.get_token_ids(text) == engine.encode_text(text)
    assert chat.get_num_tokens(text) == llm.get_num_tokens(text) == len(engine.encode_text(text))
    assert chat.get_num_tokens("") == 0
    assert chat.get_num_tokens_from_messages([]) == 0
    assert ChatDiffusionGemma(engine=engine, custom_get_token_ids=lambda _: [1, 2]).get_num_tokens(text) == 2


async def test_stop_at_the_constructor_and_at_the_call(settings: dict[str, Any], chat: ChatDiffusionGemma) -> None:
    whole = chat.invoke(PROMPT).text
    first, second = whole[len(whole) // 2 :][:3], whole[len(whole) // 4 :][:3]
    stopped = ChatDiffusionGemma(**settings, stop=[first])
    for answer in (stopped.invoke(PROMPT), await stopped.ainvoke(PROMPT), chat.invoke(PROMPT, stop=[first])):
        assert answer.text == whole[: whole.index(first)]
        assert answer.response_metadata["finish_reason"] == "stop"
    assert stopped.invoke(PROMPT, stop=[second]).text == whole[: whole.index(second)]
    assert stopped.invoke(PROMPT, stop=[]).text == whole
    assert "".join(chunk.text for chunk in stopped.stream(PROMPT)) == whole[: whole.index(first)]


def test_per_call_settings(chat: ChatDiffusionGemma) -> None:
    assert chat.invoke(PROMPT, max_tokens=7).usage_metadata["output_tokens"] == 7
    assert chat.invoke(PROMPT, seed=4).text != chat.invoke(PROMPT).text
    assert (
        chat.invoke(PROMPT, max_denoising_steps=1).response_metadata["denoising_steps"]
        < (chat.invoke(PROMPT).response_metadata["denoising_steps"])
    )
    assert chat.bind(max_tokens=7).invoke(PROMPT).usage_metadata["output_tokens"] == 7
    assert chat.invoke(PROMPT, seed=None).text == chat.invoke(PROMPT).text


def test_temperature_0_repeats_itself(engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=engine, temperature=0, max_tokens=20)
    # At other temperatures the answers to this differ from call to call.
    assert len({chat.invoke("A story about rivers and kings").text for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"max_token": 3}, r"ChatDiffusionGemma: unknown keyword argument 'max_token' \(did you mean 'max_tokens'\?\)"),
        ({"top_p": 0.5}, r"max_denoising_steps=4 belongs to decoding='diffusion', top_p=0\.5 to 'verified'"),
        ({"drafts": True}, "'drafts'"),
        ({"max_tokens": -1}, "max_tokens=-1"),
        ({"seed": "x"}, "seed='x'"),
        ({"stop": [""]}, "non-empty"),
        ({"timeout": -1}, "timeout=-1"),
        ({"canvas_length": 10_000}, "canvas_length=10000"),
        ({"model": "a/b"}, "model='a/b'"),
    ],
)
async def test_bad_call_settings_are_refused_by_name(
    chat: ChatDiffusionGemma, engine: Engine, keywords: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        chat.invoke(PROMPT, **keywords)
    with pytest.raises(ValueError, match=words):
        await chat.ainvoke(PROMPT, **keywords)
    with pytest.raises(ValueError, match=words):
        list(chat.stream(PROMPT, **keywords))
    assert idle(engine)


async def test_empty_prompts_are_refused(chat: ChatDiffusionGemma) -> None:
    with pytest.raises(ValueError, match="empty"):
        chat.invoke("")
    with pytest.raises(ValueError, match="empty"):
        await chat.ainvoke([])


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.text = ""

    def on_llm_new_token(self, token: str, **_: Any) -> None:
        self.text += token


def test_streaming_reports_tokens_to_callbacks(settings: dict[str, Any]) -> None:
    for model in (ChatDiffusionGemma(**settings, streaming=True), DiffusionGemmaLLM(**settings, streaming=True)):
        tokens = Tokens()
        answer = model.invoke(PROMPT, config={"callbacks": [tokens]})
        assert tokens.text == (answer if isinstance(answer, str) else answer.text) != ""


async def test_chain(chat: ChatDiffusionGemma) -> None:
    chain = ChatPromptTemplate.from_messages([("system", "brown"), ("human", "{word} fox")]) | chat | StrOutputParser()
    answer = chain.invoke({"word": "quick"})
    assert answer
    assert await chain.ainvoke({"word": "quick"}) == answer
    assert "".join(chain.stream({"word": "quick"})) == answer
    assert "".join([text async for text in chain.astream({"word": "quick"})]) == answer


@pytest.mark.parametrize("output_version", ["v0", "v1"])
async def test_content_blocks_and_events(settings: dict[str, Any], output_version: str) -> None:
    chat = ChatDiffusionGemma(**settings, output_version=output_version)
    text = chat.invoke(PROMPT).text
    merged = reduce(add, list(chat.stream(PROMPT)))
    assert merged.text == text
    assert [block["type"] for block in merged.content_blocks] == ["text"]
    kinds = [event["event"] async for event in chat.astream_events(PROMPT, version="v2")]
    assert kinds[0] == "on_chat_model_start"
    assert kinds[-1] == "on_chat_model_end"


def test_embedded_answers_from_the_context(embedded_engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=embedded_engine, temperature=0, max_tokens=64)
    question = "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?"
    assert "1931" in chat.invoke(question).text
    assert "1931" in DiffusionGemmaLLM(engine=embedded_engine, temperature=0, max_tokens=64).invoke(question)
