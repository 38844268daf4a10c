"""The four ways to ask, and what becomes of a request on each."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import ContextOverflowError as LangChainContextOverflowError
from langchain_core.messages import AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

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
METADATA = {
    "model_name",
    "model_provider",
    "finish_reason",
    "canvases",
    "denoising_steps",
    "tokens_per_step",
    "tokens_per_s",
    "timings",
}


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
    assert 0 < usage["output_tokens"] <= 40
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
    assert chat.invoke(PROMPT, max_tokens=7).usage_metadata["output_tokens"] <= 7
    assert chat.invoke(PROMPT, seed=4).text != chat.invoke(PROMPT).text
    assert (
        chat.invoke(PROMPT, max_denoising_steps=1).response_metadata["denoising_steps"]
        < (chat.invoke(PROMPT).response_metadata["denoising_steps"])
    )
    assert chat.bind(max_tokens=7).invoke(PROMPT).usage_metadata["output_tokens"] <= 7
    assert chat.invoke(PROMPT, seed=None).text == chat.invoke(PROMPT).text


def test_temperature_0_repeats_itself(engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=engine, temperature=0, max_tokens=20)
    # At other temperatures the answers to this differ from call to call.
    assert len({chat.invoke("A story about rivers and kings").text for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"max_token": 3}, r"ChatDiffusionGemma: unknown keyword argument 'max_token' \(did you mean 'max_tokens'\?\)"),
        ({"top_p": 0.5}, "'top_p'"),
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


def test_a_call_may_name_another_model(tiny_checkpoint: str) -> None:
    answer = ChatDiffusionGemma(model="no/such-model", max_tokens=8, seed=1).invoke(PROMPT, model=tiny_checkpoint)
    assert answer.response_metadata["model_name"] == tiny_checkpoint


async def test_empty_prompts_are_refused(chat: ChatDiffusionGemma) -> None:
    with pytest.raises(ValueError, match="empty"):
        chat.invoke("")
    with pytest.raises(ValueError, match="empty"):
        await chat.ainvoke([])


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


# The string model.


async def test_all_four_ways_of_the_string_model(llm: DiffusionGemmaLLM) -> None:
    answer = llm.invoke(PROMPT)
    assert answer
    assert await llm.ainvoke(PROMPT) == answer
    assert "".join(llm.stream(PROMPT)) == answer
    assert "".join([text async for text in llm.astream(PROMPT)]) == answer


def test_the_string_model_asks_as_a_user_or_raw(
    settings: dict[str, Any], llm: DiffusionGemmaLLM, chat: ChatDiffusionGemma, engine: Engine
) -> None:
    assert llm.invoke(PROMPT) == chat.invoke(PROMPT).text
    raw = DiffusionGemmaLLM(**settings, raw=True)
    usage = raw.generate([PROMPT]).llm_output["token_usage"]
    assert usage["prompt_tokens"] == engine.count_tokens(PROMPT) < chat.invoke(PROMPT).usage_metadata["input_tokens"]


async def test_the_string_model_batches_all_prompts(tiny_checkpoint: str) -> None:
    llm = DiffusionGemmaLLM(model=tiny_checkpoint, max_context=301, max_tokens=30, seed=1)
    prompts = [f"{PROMPT} {number}" for number in range(8)]
    result = llm.generate(prompts)
    assert llm._engine().stats().max_batch == 8
    assert [g[0].text for g in result.generations] == llm.batch(prompts) == await llm.abatch(prompts)
    infos = [g[0].generation_info for g in result.generations]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"):
        assert result.llm_output["token_usage"][name] == sum(info["token_usage"][name] for info in infos)
    assert all(set(info) == METADATA | {"token_usage"} for info in infos)
    with pytest.raises(ValueError, match="DiffusionGemmaLLM: unknown keyword argument 'max_token'"):
        llm.batch(prompts, max_token=3)


# The checkpoint inside the package.


def test_embedded_answers_from_the_context(embedded_engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=embedded_engine, temperature=0, max_tokens=64)
    question = "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?"
    assert "1931" in chat.invoke(question).text
    assert "1931" in DiffusionGemmaLLM(engine=embedded_engine, temperature=0, max_tokens=64).invoke(question)


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


def test_a_copy_cannot_change_what_its_engine_holds(chat: ChatDiffusionGemma) -> None:
    with pytest.raises(ValueError, match="max_context=64: this object was given an engine that holds None"):
        chat.model_copy(update={"max_context": 64}).invoke(PROMPT)
