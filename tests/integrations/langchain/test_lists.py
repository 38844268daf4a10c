"""Lists of inputs: one call, one batch of the engine, and LangChain's rules for configs, errors and callbacks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tools import tool
from pydantic import BaseModel

from dgemma_core import Engine, LoadSpec, Question
from dgemma_core.errors import QueueFullError
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM
from tests.helpers.waiting import idle, wait_for
from tests.integrations.langchain.conftest import PROMPT

PROMPTS = [f"{PROMPT} {number}" for number in range(12)]


class Weight(BaseModel):
    """A weight."""

    kilograms: int


@tool
def weigh(name: str) -> str:
    """Weighs something."""
    return f"{name} weighs 512 kilograms."


class Watcher(BaseCallbackHandler):
    """Notes the runs that start, end and fail."""

    def __init__(self) -> None:
        self.started: list[tuple[uuid.UUID, str, list[str]]] = []
        self.ended: list[uuid.UUID] = []
        self.failed: list[uuid.UUID] = []

    def on_chat_model_start(self, serialized: Any, messages: list[list[BaseMessage]], **kwargs: Any) -> None:
        self.started.append((kwargs["run_id"], messages[0][0].text, list(kwargs.get("tags") or [])))

    def on_llm_end(self, response: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        self.ended.append(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        self.failed.append(run_id)


class AsyncWatcher(AsyncCallbackHandler):
    """Notes the runs that end, on an event loop."""

    def __init__(self) -> None:
        self.ended: list[uuid.UUID] = []

    async def on_llm_end(self, response: Any, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        self.ended.append(run_id)


@pytest.fixture
def small_queue(tiny_checkpoint: str) -> Iterator[Engine]:
    with Engine(LoadSpec(model=tiny_checkpoint, device="cpu", max_queue=4)) as engine:
        engine.load()
        yield engine


def passes(engine: Engine) -> int:
    return engine.stats().forward_passes


async def test_batch_takes_as_few_passes_as_one_answer_needs(chat: ChatDiffusionGemma, engine: Engine) -> None:
    answers, counts = [], []
    for prompt in PROMPTS:
        before = passes(engine)
        answers.append(chat.invoke(prompt).text)
        counts.append(passes(engine) - before)
    before = passes(engine)
    assert [answer.text for answer in chat.batch(PROMPTS)] == answers
    batch = passes(engine) - before
    assert batch <= max(counts) + 6, "a few requests arrive after the first step"
    assert batch < sum(counts) / 4
    found = dict(chat.batch_as_completed(PROMPTS))
    assert [found[number].text for number in range(12)] == answers
    assert [answer.text for answer in await chat.abatch(PROMPTS)] == answers
    assert {index async for index, _ in chat.abatch_as_completed(PROMPTS)} == set(range(12))


def test_chains_hand_the_whole_list_over(chat: ChatDiffusionGemma, engine: Engine) -> None:
    chain = ChatPromptTemplate.from_messages([("human", "{text}")]) | chat | StrOutputParser()
    before, inputs = passes(engine), [{"text": prompt} for prompt in PROMPTS]
    texts = chain.batch(inputs)
    together = passes(engine) - before
    assert texts == [chain.invoke(given) for given in inputs]
    assert together < (passes(engine) - before - together) / 4


def test_structured_output_and_tools_take_lists(held_chat: ChatDiffusionGemma) -> None:
    assert all(isinstance(weight, Weight) for weight in held_chat.with_structured_output(Weight).batch(["a", "b", "c"]))
    calling = held_chat.bind_tools([weigh], tool_choice="any").batch(["a", "b", "c"])
    assert [message.tool_calls[0]["name"] for message in calling] == ["weigh"] * 3


async def test_a_list_longer_than_the_queue_waits_for_room(small_queue: Engine) -> None:
    chat = ChatDiffusionGemma(engine=small_queue, max_tokens=4, max_denoising_steps=1)
    llm = DiffusionGemmaLLM(engine=small_queue, max_tokens=4, max_denoising_steps=1)
    asks = DiffusionGemmaClassifier(engine=small_queue, questions={"fox": Question("bool", "Is it about a fox?")})
    for model in (chat, asks):
        assert len(await model.abatch(PROMPTS)) == 12
        assert len(model.batch(PROMPTS)) == 12
    for either in (chat, llm, asks):
        assert len([pair async for pair in either.abatch_as_completed(PROMPTS)]) == 12
        assert len(dict(either.batch_as_completed(PROMPTS))) == 12
    assert idle(small_queue)


def test_one_input_is_refused_when_the_queue_is_full(small_queue: Engine) -> None:
    endless = ChatDiffusionGemma(engine=small_queue, max_tokens=1500, max_denoising_steps=40, confidence_threshold=1e-9)
    request = endless._call(None, {}).request(PROMPT)
    handles = []
    with suppress(QueueFullError):
        while True:
            handles.append(small_queue.submit(request))
    for batch in (endless.batch, lambda inputs: dict(endless.batch_as_completed(inputs))):
        with pytest.raises(QueueFullError):
            batch([PROMPT])
    for handle in handles:
        handle.cancel()


def test_max_concurrency_limits_the_open_requests(small_queue: Engine) -> None:
    chat = ChatDiffusionGemma(engine=small_queue, max_tokens=4, max_denoising_steps=1)
    assert len(chat.batch(PROMPTS, {"max_concurrency": 2})) == 12
    assert small_queue.stats().max_batch <= 2


async def test_each_input_has_its_config(chat: ChatDiffusionGemma) -> None:
    watchers = [Watcher() for _ in range(3)]
    ids = [uuid.uuid4() for _ in range(3)]
    configs: list[Any] = [
        {"callbacks": [watcher], "tags": [f"t{n}"], "run_id": run_id, "run_name": f"r{n}"}
        for n, (watcher, run_id) in enumerate(zip(watchers, ids, strict=True))
    ]
    chat.batch(PROMPTS[:3], configs)
    for number, (watcher, run_id) in enumerate(zip(watchers, ids, strict=True)):
        assert watcher.started == [(run_id, PROMPTS[number], [f"t{number}"])]
        assert watcher.ended == [run_id]
    with pytest.raises(ValueError, match="same length"):
        chat.batch(PROMPTS[:3], configs[:2])
    everybodys, asynchronous = Watcher(), AsyncWatcher()
    chat.batch(PROMPTS[:3], {"callbacks": [everybodys, asynchronous]})
    assert len(set(everybodys.ended)) == len(set(asynchronous.ended)) == 3


async def test_errors_are_raised_or_returned(chat: ChatDiffusionGemma, engine: Engine) -> None:
    inputs: list[Any] = [PROMPT, 5, PROMPT]
    watcher = Watcher()
    for answers in (
        chat.batch(inputs, {"callbacks": [watcher]}, return_exceptions=True),
        await chat.abatch(inputs, return_exceptions=True),
    ):
        assert isinstance(answers[1], ValueError)
        assert answers[0].text == answers[2].text == chat.invoke(PROMPT).text
    assert len(watcher.ended) == 2
    found = dict(chat.batch_as_completed(inputs, return_exceptions=True))
    assert isinstance(found[1], ValueError)
    with pytest.raises(ValueError, match="Invalid input type"):
        chat.batch(inputs)
    with pytest.raises(ValueError, match="Invalid input type"):
        await chat.abatch(inputs)
    with pytest.raises(ValueError, match="bogus"):
        chat.batch([PROMPT, PROMPT], bogus=1)
    wait_for(lambda: idle(engine))


async def test_an_error_cancels_the_rest_of_the_list(settings: dict[str, Any], engine: Engine) -> None:
    endless = ChatDiffusionGemma(**{**settings, "max_tokens": 1500, "confidence_threshold": 1e-9})
    finished = engine.stats().finished
    with pytest.raises(ValueError, match="Invalid input type"):
        endless.batch([PROMPT, PROMPT, 5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="Invalid input type"):
        await endless.abatch([PROMPT, PROMPT, 5])  # type: ignore[list-item]
    wait_for(lambda: idle(engine))
    assert engine.stats().finished == finished


def test_keyword_arguments_reach_every_input(chat: ChatDiffusionGemma) -> None:
    whole = chat.invoke(PROMPTS[0], max_tokens=9).text
    given: dict[str, Any] = {"stop": [whole[len(whole) // 2 :]], "max_tokens": 9}
    texts = [answer.text for answer in chat.batch(PROMPTS[:3], **given)]
    assert texts == [chat.invoke(prompt, **given).text for prompt in PROMPTS[:3]]
    assert texts[0] == whole[: len(whole) // 2]


def test_the_cache_answers_lists(settings: dict[str, Any], engine: Engine) -> None:
    chat = ChatDiffusionGemma(**settings, cache=InMemoryCache())
    first = chat.batch(PROMPTS[:3])
    submitted = engine.stats().submitted
    assert [answer.text for answer in chat.batch(PROMPTS[:3])] == [answer.text for answer in first]
    assert engine.stats().submitted == submitted


def test_the_rate_limiter_counts_every_input(settings: dict[str, Any]) -> None:
    class Counter(InMemoryRateLimiter):
        count = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            self.count += 1
            return super().acquire(blocking=blocking)

        async def aacquire(self, *, blocking: bool = True) -> bool:
            self.count += 1
            return await super().aacquire(blocking=blocking)

    limiter = Counter(requests_per_second=1000, check_every_n_seconds=0.001, max_bucket_size=10)
    ChatDiffusionGemma(**settings, rate_limiter=limiter).batch(PROMPTS[:3])
    assert limiter.count == 3


def test_a_subclass_that_answers_in_its_own_way_is_asked(settings: dict[str, Any]) -> None:
    class Loud(ChatDiffusionGemma):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            result = super()._generate(*args, **kwargs)
            result.generations[0].message.content = "LOUD"
            return result

    assert [answer.text for answer in Loud(**settings).batch([PROMPT, PROMPT])] == ["LOUD", "LOUD"]


def test_an_empty_list_has_no_answers(chat: ChatDiffusionGemma) -> None:
    assert chat.batch([]) == []
    assert list(chat.batch_as_completed([])) == []
