"""Nothing blocks the event loop: servers that watch for that, as LangGraph's does, let both adapters run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, BlockingError
from langchain_core.tools import tool
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from dgemma_core import LoadSpec
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.shared.engines import release

SHORT: dict[str, Any] = {"seed": 0, "max_tokens": 64, "max_denoising_steps": 3}


class Weight(BaseModel):
    """A weight."""

    kilograms: int


def get_weight(name: str) -> str:
    """Gets the weight of something."""
    return f"{name} weighs 512 kilograms."


@pytest.fixture
def watched(tiny_checkpoint: str) -> Iterator[str]:
    """A checkpoint that nobody has loaded, while every blocking call on an event loop raises."""
    release(LoadSpec(model=tiny_checkpoint))
    buster = BlockBuster()
    buster.activate()
    yield tiny_checkpoint
    buster.deactivate()
    release(LoadSpec(model=tiny_checkpoint))


async def test_the_watch_works(watched: str) -> None:
    with pytest.raises(BlockingError), open(f"{watched}/config.json", encoding="utf-8") as file:  # noqa: ASYNC230
        file.read()


async def test_langchain(watched: str) -> None:
    chat = ChatDiffusionGemma(model=watched, **SHORT)
    assert (await chat.ainvoke("Hello")).content
    assert [chunk async for chunk in chat.astream("Hello")]
    assert (await chat.bind_tools([tool(get_weight)], tool_choice="any").ainvoke("Hello")).tool_calls
    assert isinstance(await chat.with_structured_output(Weight).ainvoke("Hello"), Weight)
    assert [event async for event in chat.astream_events("Hello", version="v2")]
    assert await DiffusionGemmaLLM(model=watched, **SHORT).ainvoke("Hello")


async def test_llama_index(watched: str) -> None:
    llm = DiffusionGemma(model=watched, **SHORT)
    user = [ChatMessage(role="user", content="Hello")]
    assert (await llm.achat(user)).message.content
    assert [chunk async for chunk in await llm.astream_chat(user)]
    assert (await llm.acomplete("Hello")).text
    response = await llm.achat_with_tools([FunctionTool.from_defaults(get_weight)], "Hello", tool_required=True)
    assert llm.get_tool_calls_from_response(response)
    assert isinstance(await llm.astructured_predict(Weight, PromptTemplate("Hello")), Weight)
