"""Answers and calls that were cut for want of room, as users of LangChain see them."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from dgemma_core import Engine
from dgemma_core.errors import AnswerCutError
from dgemma_integrations.langchain import ChatDiffusionGemma

TEXT = "The Halur bridge was built in 1907. The owner of the Halur bridge is Mira Tanu."
EXTRACT = f"{TEXT}\n\nExtract as JSON with the fields year, owner: the Halur bridge."
WEIGHT = "What is the weight of Halur?"
METHODS = ["json_schema", "function_calling", "json_mode"]


class Bridge(BaseModel):
    year: int
    owner: str


@tool
def get_weight(name: str) -> str:
    """Gets the weight of something."""
    return f"{name}: 512 kilograms"


@pytest.fixture
def chat(embedded_engine: Engine) -> ChatDiffusionGemma:
    return ChatDiffusionGemma(engine=embedded_engine, seed=0, max_tokens=128, max_denoising_steps=16)


def shortest_cut(chat: ChatDiffusionGemma, method: str) -> int:
    """A room in which the object fits, but not all that the model wants to write."""
    structured: Any = chat.with_structured_output(Bridge, method=method, include_raw=True)
    return int(structured.invoke(EXTRACT)["raw"].usage_metadata["output_tokens"]) - 2


async def test_a_call_cut_short_says_length(chat: ChatDiffusionGemma) -> None:
    bound = chat.bind_tools([get_weight], tool_choice="any")
    for room, name, reason in [(16, "Hal", "length"), (17, "Halur", "tool_calls")]:
        chunks = list(bound.stream(WEIGHT, max_tokens=room))
        streamed = chunks[0]
        for chunk in chunks[1:]:
            streamed += chunk
        for message in (
            bound.invoke(WEIGHT, max_tokens=room),
            await bound.ainvoke(WEIGHT, max_tokens=room),
            streamed,
        ):
            assert [call["args"] for call in message.tool_calls] == [{"name": name}]
            assert message.response_metadata["finish_reason"] == reason


def test_an_agent_sees_that_a_call_was_cut(chat: ChatDiffusionGemma) -> None:
    agent: Any = create_agent(chat.model_copy(update={"max_tokens": 16}), [get_weight])
    messages = agent.invoke({"messages": [("user", WEIGHT)]})["messages"]
    (asked, *_) = (message for message in messages if isinstance(message, AIMessage))
    assert asked.tool_calls[0]["args"] == {"name": "Hal"}
    assert asked.response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("method", METHODS)
async def test_an_object_cut_short_is_told_in_the_log(
    chat: ChatDiffusionGemma, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    structured: Any = chat.with_structured_output(Bridge, method=method)
    room = shortest_cut(chat, method)
    whole = structured.invoke(EXTRACT)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        cut = structured.invoke(EXTRACT, max_tokens=room)
        assert isinstance(cut, Bridge)
        assert cut != whole
        assert await structured.ainvoke(EXTRACT, max_tokens=room) == cut
        assert list(structured.stream(EXTRACT, max_tokens=room))[-1] == cut
        assert [part async for part in structured.astream(EXTRACT, max_tokens=room)][-1] == cut
    assert len(caplog.records) == 4
    assert all("Bridge" in r.getMessage() and "max_tokens" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("method", METHODS)
async def test_an_object_cut_short_may_be_an_error(chat: ChatDiffusionGemma, method: str) -> None:
    room = shortest_cut(chat, method)
    strict = chat.model_copy(update={"on_length": "raise"})
    for structured in (
        strict.with_structured_output(Bridge, method=method),  # type: ignore[arg-type]
        chat.with_structured_output(Bridge, method=method, on_length="raise"),  # type: ignore[arg-type]
    ):
        with pytest.raises(AnswerCutError, match=r"Bridge.*max_tokens") as caught:
            structured.invoke(EXTRACT, max_tokens=room)
        assert Bridge.model_validate_json(caught.value.text)
    assert structured.invoke(EXTRACT) != Bridge.model_validate_json(caught.value.text)
    with pytest.raises(AnswerCutError):
        await structured.ainvoke(EXTRACT, max_tokens=room)
    with pytest.raises(AnswerCutError):
        list(structured.stream(EXTRACT, max_tokens=room))


@pytest.mark.parametrize("method", METHODS)
def test_the_raw_message_of_a_cut_object_says_length(
    chat: ChatDiffusionGemma, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    room = shortest_cut(chat, method)
    asked: Any = chat.with_structured_output(Bridge, method=method, include_raw=True)
    found = asked.invoke(EXTRACT, max_tokens=room)
    assert found["raw"].response_metadata["finish_reason"] == "length"
    assert isinstance(found["parsed"], Bridge)
    assert found["parsing_error"] is None
    assert not caplog.records
    assert asked.invoke(EXTRACT)["raw"].response_metadata["finish_reason"] != "length"
    refusing: Any = chat.with_structured_output(Bridge, method=method, include_raw=True, on_length="raise")
    refused = refusing.invoke(EXTRACT, max_tokens=room)
    assert isinstance(refused["parsing_error"], AnswerCutError)
    assert refused["parsed"] is None
    assert refused["raw"].response_metadata["finish_reason"] == "length"


def test_a_schema_without_a_class_is_named_by_its_title(chat: ChatDiffusionGemma) -> None:
    schema = {**Bridge.model_json_schema(), "title": "Span"}
    with pytest.raises(AnswerCutError, match="Span") as caught:
        chat.with_structured_output(schema, on_length="raise").invoke(EXTRACT, max_tokens=9)
    assert json.loads(caught.value.text)["year"] < 1907
    with pytest.raises(ValueError, match="on_length='stop'"):
        chat.with_structured_output(schema, on_length="stop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_length"):
        ChatDiffusionGemma(on_length="stop")  # type: ignore[arg-type]
