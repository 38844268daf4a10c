"""Both frameworks in one process on one engine."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from llama_index.core import Document, SummaryIndex

from dgemma_core import Engine, LoadSpec
from dgemma_integrations.langchain import ChatDiffusionGemma
from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.shared.engines import engine_for, release

create_agent = pytest.importorskip("langchain.agents", reason="the package langchain is not installed").create_agent

TEXT = "The Vexal bridge was built in 1931. It crosses the river Toln. The Mirdo museum opened in 1978."


@tool
def get_weight(name: str) -> str:
    """Gets the weight of something."""
    return f"{name} weighs 512 kilograms."


async def test_an_index_and_an_agent_share_weights_and_steps(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, seed=0, max_tokens=32)
    chat = ChatDiffusionGemma(engine=embedded_engine, seed=0, max_tokens=32)
    query_engine = SummaryIndex.from_documents([Document(text=TEXT)]).as_query_engine(llm=llm)
    agent = create_agent(chat, tools=[get_weight])
    question = {"messages": [HumanMessage("What is the weight of Halur?")]}
    before = embedded_engine.stats()
    answers = await asyncio.gather(
        query_engine.aquery("When was the Vexal bridge built?"),
        agent.ainvoke(question, {"recursion_limit": 6}),
        query_engine.aquery("When did the Mirdo museum open?"),
        return_exceptions=True,
    )
    assert str(answers[0]).strip()
    assert str(answers[2]).strip()
    # The small model may call tools until the limit ends the agent; nothing else may go wrong.
    assert not isinstance(answers[1], BaseException) or type(answers[1]).__name__ == "GraphRecursionError"
    after = embedded_engine.stats()
    assert after.weight_loads == 1
    assert after.finished - before.finished >= 3
    # Less work than one by one: some steps served several requests.
    assert after.forward_passes - before.forward_passes < after.denoising_steps - before.denoising_steps


async def test_streams_of_both_interleave(embedded_engine: Engine) -> None:
    # Equal answers in canvases of four tokens: neither can be through before the other has begun.
    options: dict[str, Any] = {"engine": embedded_engine, "seed": 0, "max_tokens": 32, "canvas_length": 4}
    llm, chat = DiffusionGemma(**options), ChatDiffusionGemma(**options)
    prompt = f"{TEXT}\n\nList the facts."
    order: list[str] = []

    async def read_llama_index() -> None:
        async for chunk in await llm.astream_complete(prompt):
            order.extend(["llama_index"] * bool(chunk.delta))

    async def read_langchain() -> None:
        async for chunk in chat.astream(prompt):
            order.extend(["langchain"] * bool(chunk.text))

    await asyncio.gather(read_llama_index(), read_langchain())
    assert set(order) == {"llama_index", "langchain"}
    first = {name: order.index(name) for name in set(order)}
    last = {name: len(order) - 1 - order[::-1].index(name) for name in set(order)}
    assert max(first.values()) < min(last.values())


def test_closing_one_leaves_the_other(tiny_checkpoint: str) -> None:
    spec = LoadSpec(model=tiny_checkpoint)
    llm = DiffusionGemma(model=tiny_checkpoint, seed=0, max_tokens=4)
    chat = ChatDiffusionGemma(model=tiny_checkpoint, seed=0, max_tokens=4)
    try:
        assert llm.engine is engine_for(spec)
        llm.complete("Hello")
        mine = Engine.shared(spec)  # Somebody else's reference, given back.
        assert mine is llm.engine
        mine.close()
        assert chat.invoke("Hello").content
        del llm
        gc.collect()
        assert chat.invoke("Hello").content
        assert engine_for(spec).stats().weight_loads == 1
    finally:
        release(spec)


def test_closing_a_stream_of_one_leaves_the_others(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, seed=0, max_tokens=64, canvas_length=4)
    chat = ChatDiffusionGemma(engine=embedded_engine, seed=0, max_tokens=64, canvas_length=4)
    whole = "".join(chunk.text for chunk in chat.stream(f"{TEXT}\n\nList the facts."))
    kept, left = chat.stream(f"{TEXT}\n\nList the facts."), llm.stream_complete(f"{TEXT}\n\nList the facts.")
    begin = next(kept).text
    next(left)
    left.close()
    assert begin + "".join(chunk.text for chunk in kept) == whole
