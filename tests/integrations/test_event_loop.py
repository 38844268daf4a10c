"""Nothing blocks the event loop: servers that watch for that, as LangGraph's does, let both adapters run."""

from __future__ import annotations

import base64
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, BlockingError
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from dgemma_core import Engine, Image, LoadSpec, Message, Question
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM
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


async def ask_langchain(engine: Engine, png: bytes) -> None:
    block = {"type": "image", "base64": base64.b64encode(png).decode(), "mime_type": "image/png"}
    await ChatDiffusionGemma(engine=engine, **SHORT).ainvoke([HumanMessage(["see ", block])])


async def ask_llama_index(engine: Engine, png: bytes) -> None:
    blocks = [TextBlock(text="see "), ImageBlock(image=png)]
    await DiffusionGemma(engine=engine, **SHORT).achat([ChatMessage(role="user", blocks=blocks)])


async def classify(engine: Engine, png: bytes) -> None:
    block = {"type": "image", "base64": base64.b64encode(png).decode(), "mime_type": "image/png"}
    asked = {"grey": Question("bool", "Is it grey?")}
    await DiffusionGemmaClassifier(engine=engine, questions=asked).ainvoke([HumanMessage(["see ", block])])


@pytest.mark.parametrize("ask", [ask_langchain, ask_llama_index, classify])
async def test_images_are_preprocessed_beside_the_event_loop(
    embedded_engine: Engine,
    png: bytes,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Engine, bytes], Awaitable[None]],
) -> None:
    """And what was preprocessed is what a request then takes."""
    preprocessor = embedded_engine._parts.images
    threads: list[int] = []
    cut = preprocessor._cut

    def watched(image: Image) -> object:
        threads.append(threading.get_ident())
        return cut(image)

    monkeypatch.setattr(preprocessor, "_cut", watched)
    monkeypatch.setattr(preprocessor, "_kept", type(preprocessor._kept)())
    await ask(embedded_engine, png)
    embedded_engine.submit([Message("user", ["see ", Image.from_bytes(png)])]).cancel()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
