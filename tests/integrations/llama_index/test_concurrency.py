"""Threads, event loops, batching and cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage

from dgemma_core import Engine, LoadSpec
from dgemma_integrations.llama_index import DiffusionGemma


@pytest.fixture
def engine(tiny_checkpoint: str) -> Iterator[Engine]:
    with Engine(LoadSpec(model=tiny_checkpoint)) as engine:
        yield engine


@pytest.fixture
def endless(engine: Engine) -> DiffusionGemma:
    """Answers that take long: many small canvases with many steps each."""
    return DiffusionGemma(engine=engine, seed=1, max_tokens=4000, canvas_length=8, stop_at_eos=False)


def wait_until_idle(engine: Engine, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stats = engine.stats()
        if stats.waiting == 0 and stats.running == 0:
            return
        time.sleep(0.01)
    pytest.fail(f"the engine is still busy: {engine.stats()}")


def wait_until_busy(engine: Engine, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not engine.stats().running:
        assert time.monotonic() < deadline, "the request never started"
        time.sleep(0.001)


def chat(text: str) -> list[ChatMessage]:
    return [ChatMessage(content=text)]


async def test_concurrent_calls_share_forward_passes(engine: Engine) -> None:
    llm = DiffusionGemma(engine=engine, max_tokens=16, seed=3)
    prompts = [f"question {i}" for i in range(8)]
    together = await asyncio.gather(*(llm.achat(chat(prompt)) for prompt in prompts))
    assert engine.stats().max_batch > 1
    assert engine.stats().finished == 8
    alone = [llm.chat(chat(prompt)).message.content for prompt in prompts]
    assert [response.message.content for response in together] == alone


async def test_concurrent_streams_keep_their_own_text(engine: Engine) -> None:
    llm = DiffusionGemma(engine=engine, max_tokens=24, seed=3, canvas_length=8)

    async def stream(prompt: str) -> str:
        return "".join([chunk.delta async for chunk in await llm.astream_complete(prompt)])

    prompts = [f"question {i}" for i in range(6)]
    together = await asyncio.gather(*map(stream, prompts))
    assert together == [llm.complete(prompt).text for prompt in prompts]
    assert engine.stats().max_batch > 1


def test_four_event_loops_in_four_threads(engine: Engine) -> None:
    llm = DiffusionGemma(engine=engine, max_tokens=16, seed=5)
    expected = {i: llm.complete(f"question {i}").text for i in range(4)}
    start = threading.Barrier(4)
    answers: dict[int, Any] = {}

    async def work(i: int) -> list[str]:
        one = await llm.acomplete(f"question {i}")
        two = [chunk async for chunk in await llm.astream_complete(f"question {i}")][-1]
        return [one.text, two.text]

    def thread(i: int) -> None:
        start.wait()
        answers[i] = asyncio.run(work(i))

    threads = [threading.Thread(target=thread, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert answers == {i: [expected[i]] * 2 for i in range(4)}


async def test_a_sync_call_on_a_running_loops_thread(engine: Engine) -> None:
    llm = DiffusionGemma(engine=engine, max_tokens=8, seed=5)
    pending = asyncio.create_task(llm.achat(chat("first")))
    await asyncio.sleep(0)
    inside = llm.chat(chat("second"))
    assert inside.message.content == llm.complete("second").text
    assert (await pending).message.content == llm.complete("first").text


async def test_the_event_loop_goes_on_while_the_model_works(engine: Engine) -> None:
    llm = DiffusionGemma(engine=engine, max_tokens=128, seed=5, canvas_length=8, stop_at_eos=False)
    await llm.acomplete("warm up", max_tokens=4)
    ticks = 0
    task = asyncio.create_task(llm.acomplete("Count."))
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 5


def test_the_first_request_may_come_from_many_threads_at_once(tiny_checkpoint: str) -> None:
    llm = DiffusionGemma(model=tiny_checkpoint, max_context=333, max_tokens=4, seed=0)
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(llm.complete("Hello").text)) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len(texts) == 8
    assert len(set(texts)) == 1
    assert llm.engine.stats().weight_loads == 1


# --- cancelling ---


def test_closing_a_stream_frees_the_engine(engine: Engine, endless: DiffusionGemma) -> None:
    stream = endless.stream_complete("Count.", max_tokens=400)
    next(stream)
    assert engine.stats().running + engine.stats().waiting == 1
    stream.close()
    wait_until_idle(engine)
    assert engine.stats().cancelled == 1
    stream.close()


def test_breaking_out_of_a_stream_frees_the_engine(engine: Engine, endless: DiffusionGemma) -> None:
    for _ in endless.stream_chat(chat("Count."), max_tokens=400):
        break
    gc.collect()
    wait_until_idle(engine)
    assert engine.stats().cancelled == 1


def test_dropping_a_stream_nobody_started_frees_the_engine(engine: Engine, endless: DiffusionGemma) -> None:
    stream = endless.stream_chat(chat("Count."), max_tokens=400)
    del stream
    gc.collect()
    wait_until_idle(engine)
    assert engine.stats().cancelled == 1


async def test_aclose_frees_the_engine(engine: Engine, endless: DiffusionGemma) -> None:
    stream = await endless.astream_chat(chat("Count."), max_tokens=400)
    async for _ in stream:
        break
    await stream.aclose()
    # LlamaIndex's wrapper leaves closing the inner generator to the event loop.
    await asyncio.sleep(0.05)
    await asyncio.to_thread(wait_until_idle, engine)
    assert engine.stats().cancelled == 1


@pytest.mark.parametrize("endpoint", ["achat", "acomplete", "astream_chat", "astream_complete"])
async def test_cancelling_a_task_frees_the_engine(engine: Engine, endless: DiffusionGemma, endpoint: str) -> None:
    await endless.acomplete("warm up", max_tokens=2)
    argument = chat("Count.") if "chat" in endpoint else "Count."

    async def work() -> None:
        result = await getattr(endless, endpoint)(argument, max_tokens=400)
        if "stream" in endpoint:
            async for _ in result:
                pass

    task = asyncio.create_task(work())
    await asyncio.to_thread(wait_until_busy, engine)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_until_idle, engine)
    assert engine.stats().cancelled == 1


async def test_finished_streams_are_not_cancelled(engine: Engine) -> None:
    llm = DiffusionGemma(engine=engine, max_tokens=4, seed=0)
    list(llm.stream_complete("a"))
    [chunk async for chunk in await llm.astream_complete("a")]
    llm.complete("a")
    stats = engine.stats()
    assert (stats.finished, stats.cancelled, stats.failed) == (3, 0, 0)
