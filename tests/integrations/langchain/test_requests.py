"""What becomes of a call's requests on each way out of it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from langchain_core.exceptions import ContextOverflowError as LangChainContextOverflowError

from dgemma_core import DraftEvent, Engine, LoadSpec, Question
from dgemma_core.errors import ContextOverflowError as EngineContextOverflowError
from dgemma_core.errors import RequestTimeoutError
from dgemma_integrations.langchain import (
    ChatDiffusionGemma,
    ContextOverflowError,
    DiffusionGemmaClassifier,
    DiffusionGemmaLLM,
)
from tests.helpers.waiting import idle, wait_for
from tests.integrations.langchain.conftest import PROMPT

# Never sure, so that each canvas takes all its steps: long enough to be caught running.
ENDLESS: dict[str, Any] = {"max_tokens": 1500, "max_denoising_steps": 40, "confidence_threshold": 1e-9, "seed": 5}


async def test_context_overflow_is_both_errors(
    chat: ChatDiffusionGemma, llm: DiffusionGemmaLLM, engine: Engine
) -> None:
    submitted = engine.stats().submitted
    for ask in (chat.invoke, llm.invoke):
        with pytest.raises(ContextOverflowError, match="4000") as caught:
            ask(PROMPT, max_tokens=4000)
        assert isinstance(caught.value, LangChainContextOverflowError)
        assert isinstance(caught.value, EngineContextOverflowError)
        assert (caught.value.max_new_tokens, caught.value.context_window) == (4000, 2048)
    with pytest.raises(LangChainContextOverflowError):
        await chat.ainvoke(PROMPT, max_tokens=4000)
    assert engine.stats().submitted == submitted


async def test_timeout(engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=engine, **ENDLESS, timeout=0.05)
    with pytest.raises(RequestTimeoutError):
        chat.invoke(PROMPT)
    with pytest.raises(TimeoutError):
        await chat.ainvoke(PROMPT)
    wait_for(lambda: idle(engine))


async def test_abatch_shares_forward_passes(tiny_checkpoint: str) -> None:
    chat = ChatDiffusionGemma(model=tiny_checkpoint, max_context=300, max_tokens=30, seed=1)
    prompts = [f"{PROMPT} {number}" for number in range(12)]
    together = await chat.abatch(prompts)
    assert chat._engine().stats().max_batch > 4
    assert [answer.text for answer in together] == [chat.invoke(prompt).text for prompt in prompts]


@pytest.mark.alone
async def test_the_loop_stays_free(engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=engine, **(ENDLESS | {"max_tokens": 300}))
    lags: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began - 0.001)

    ticker = asyncio.create_task(tick())
    assert [chunk async for chunk in chat.astream(PROMPT)]
    ticker.cancel()
    assert len(lags) > 20
    assert sorted(lags)[int(len(lags) * 0.95)] < 0.1


async def test_leaving_an_async_stream_frees_the_engine(engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=engine, **ENDLESS)
    cancelled = engine.stats().cancelled
    stream = chat.astream(PROMPT)
    await anext(stream)
    assert engine.stats().running == 1
    await stream.aclose()  # type: ignore[attr-defined]
    await asyncio.to_thread(wait_for, lambda: idle(engine))

    async for _ in chat.astream(PROMPT):
        break
    await asyncio.to_thread(wait_for, lambda: idle(engine))
    assert engine.stats().cancelled == cancelled + 2


@pytest.mark.parametrize("way", ["ainvoke", "astream", "llm"])
async def test_cancelling_the_task_frees_the_engine(engine: Engine, way: str) -> None:
    async def ask() -> None:
        if way == "llm":
            await DiffusionGemmaLLM(engine=engine, **ENDLESS).abatch([PROMPT, "fox"])
        elif way == "ainvoke":
            await ChatDiffusionGemma(engine=engine, **ENDLESS).ainvoke(PROMPT)
        else:
            async for _ in ChatDiffusionGemma(engine=engine, **ENDLESS).astream(PROMPT):
                pass

    finished = engine.stats().finished
    task = asyncio.create_task(ask())
    await asyncio.to_thread(wait_for, lambda: engine.stats().running > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_for, lambda: idle(engine))
    assert engine.stats().finished == finished


def test_leaving_a_stream_frees_the_engine(engine: Engine) -> None:
    cancelled = engine.stats().cancelled
    for model in (ChatDiffusionGemma(engine=engine, **ENDLESS), DiffusionGemmaLLM(engine=engine, **ENDLESS)):
        stream = model.stream(PROMPT)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        wait_for(lambda: idle(engine))
    assert engine.stats().cancelled == cancelled + 2


def test_a_refused_prompt_takes_its_batch_with_it(engine: Engine) -> None:
    llm = DiffusionGemmaLLM(engine=engine, **ENDLESS)
    with pytest.raises(ValueError, match="empty"):
        llm.generate([PROMPT, ""])
    wait_for(lambda: idle(engine))


async def test_drafts_go_to_the_callback_and_nowhere_else(settings: dict[str, Any], chat: ChatDiffusionGemma) -> None:
    drafts: list[DraftEvent] = []
    watched = ChatDiffusionGemma(**settings, on_draft=drafts.append)
    plain = chat.invoke(PROMPT).text
    assert watched.invoke(PROMPT).text == plain
    seen = len(drafts)
    assert seen == chat.invoke(PROMPT).response_metadata["denoising_steps"]
    assert "".join(chunk.text for chunk in watched.stream(PROMPT)) == plain
    assert len(drafts) == 2 * seen

    async def on_draft(draft: DraftEvent) -> None:
        await asyncio.sleep(0)
        drafts.append(draft)

    assert (await chat.ainvoke(PROMPT, on_draft=on_draft)).text == plain
    assert len(drafts) == 3 * seen


async def test_loading_does_not_count_as_waiting(tiny_checkpoint: str) -> None:
    def slowly(_line: str) -> None:
        time.sleep(0.6)

    for way in ("sync", "stream", "async", "decide"):
        with Engine(LoadSpec(model=tiny_checkpoint, device="cpu")) as engine:
            loading = threading.Thread(target=engine.load, args=(slowly,))
            loading.start()
            chat = ChatDiffusionGemma(engine=engine, timeout=0.55, max_tokens=4, max_denoising_steps=1)
            if way == "sync":
                chat.invoke(PROMPT)
            elif way == "stream":
                assert list(chat.stream(PROMPT))
            elif way == "async":
                await chat.ainvoke(PROMPT)
            else:
                asked = {"fox": Question("bool", "Is this about a fox?")}
                DiffusionGemmaClassifier(engine=engine, questions=asked, timeout=0.55).invoke(PROMPT)
            loading.join()


async def test_more_prompts_than_the_queue_holds(tiny_checkpoint: str) -> None:
    with Engine(LoadSpec(model=tiny_checkpoint, device="cpu", max_queue=2)) as engine:
        llm = DiffusionGemmaLLM(engine=engine, max_tokens=4, max_denoising_steps=1)
        assert len(llm.batch([PROMPT] * 9)) == 9
        assert len(await llm.abatch([PROMPT] * 9)) == 9
        assert idle(engine)


def test_nobody_would_await_this_callback(chat: ChatDiffusionGemma) -> None:
    async def show(draft: DraftEvent) -> None:
        raise AssertionError(draft)

    with pytest.raises(ValueError, match="async methods"):
        chat.invoke(PROMPT, on_draft=show)
