"""Ctrl-C ends every call that waits for the model, frees the engine, and the next call works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import ToolMetadata
from pydantic import BaseModel

from dgemma_core import Engine, Hole, LoadSpec, Message, Question, SamplingParams
from dgemma_core.execution.backend import Step, StepResult
from dgemma_core.execution.eager import EagerBackend
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM
from dgemma_integrations.llama_index import (
    DiffusionGemma,
    DiffusionGemmaEvaluator,
    DiffusionGemmaRerank,
    DiffusionGemmaSelector,
)
from tests.helpers.interrupts import SOON, interrupted
from tests.helpers.waiting import idle, wait_for

ASK = [Message("user", "The quick brown fox")]
SHORT: dict[str, Any] = {"seed": 0, "max_tokens": 64, "max_denoising_steps": 3}


class Weight(BaseModel):
    """A weight."""

    kilograms: int


class HeldBackend(EagerBackend):
    """While it is held, a step takes longer than a test waits."""

    held = threading.Event()
    began = threading.Event()
    go = threading.Event()

    def run(self, step: Step) -> StepResult:
        if self.held.is_set():
            self.began.set()
            if not self.go.wait(SOON * 3):
                self.held.clear()
        return super().run(step)


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: str) -> Iterator[Engine]:
    with Engine(LoadSpec(model=tiny_checkpoint, device="cpu")) as engine:
        engine._loader.make_backend = HeldBackend
        engine.load()
        yield engine


@pytest.fixture
def step_under_way() -> Iterator[Callable[[], bool]]:
    """Steps take long in this test, until ``go``."""
    for event in (HeldBackend.began, HeldBackend.go):
        event.clear()
    HeldBackend.held.set()
    yield HeldBackend.began.is_set
    HeldBackend.go.set()
    HeldBackend.held.clear()


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in ("The fox", "The dog", "The hen")]


Way = Callable[[Engine], object]


def chat(engine: Engine) -> ChatDiffusionGemma:
    return ChatDiffusionGemma(engine=engine, **SHORT)


def classifier(engine: Engine) -> DiffusionGemmaClassifier:
    return DiffusionGemmaClassifier(engine=engine, questions={"fox": Question("bool", "Is it about a fox?")})


def llama(engine: Engine) -> DiffusionGemma:
    return DiffusionGemma(engine=engine, **SHORT)


def structured(engine: Engine) -> Any:
    return chat(engine).with_structured_output(Weight)


PROMPTS = [f"{word} fox" for word in ("brown", "quick", "lazy", "red", "old", "big", "sly", "wet", "shy", "sad")]
WAYS: dict[str, Way] = {
    "generate": lambda engine: engine.generate([ASK, ASK], SamplingParams(max_new_tokens=8)),
    "decide": lambda engine: engine.decide("The fox", {"fox": Question("bool", "Is it about a fox?")}),
    "infill": lambda engine: engine.infill(["The ", Hole(4), " fox"]),
    "invoke": lambda engine: chat(engine).invoke("fox"),
    "stream": lambda engine: list(chat(engine).stream("fox")),
    "batch": lambda engine: chat(engine).batch(PROMPTS),
    "batch_return_exceptions": lambda engine: chat(engine).batch(PROMPTS, return_exceptions=True),
    "batch_max_concurrency": lambda engine: chat(engine).batch(PROMPTS, {"max_concurrency": 2}),
    "batch_as_completed": lambda engine: list(chat(engine).batch_as_completed(PROMPTS)),
    "structured_batch": lambda engine: structured(engine).batch(PROMPTS),
    "llm_batch": lambda engine: DiffusionGemmaLLM(engine=engine, **SHORT).batch(PROMPTS),
    "llm_batch_as_completed": lambda engine: list(
        DiffusionGemmaLLM(engine=engine, **SHORT).batch_as_completed(PROMPTS)
    ),
    "classify": lambda engine: classifier(engine).invoke("fox"),
    "classifier_batch": lambda engine: classifier(engine).batch(PROMPTS),
    "llama_chat": lambda engine: llama(engine).chat([ChatMessage(content="fox")]),
    "llama_stream": lambda engine: list(llama(engine).stream_complete("fox")),
    "llama_structured": lambda engine: llama(engine).structured_predict(Weight, PromptTemplate("fox")),
    "rerank": lambda engine: DiffusionGemmaRerank(llm=llama(engine)).postprocess_nodes(nodes(), query_str="fox?"),
    "evaluate": lambda engine: DiffusionGemmaEvaluator(llama(engine), question="Is it short?").evaluate(
        response="fox", contexts=["fox"]
    ),
    "select": lambda engine: DiffusionGemmaSelector(llm=llama(engine)).select(
        [ToolMetadata(name=name, description=name) for name in ("foxes", "dogs")], "fox"
    ),
}

# These may be done with the step that was under way.
ONE_STEP = ("decide", "classify", "classifier_batch", "rerank", "evaluate", "select")


@pytest.mark.parametrize("way", WAYS)
def test_a_call_is_interrupted_and_the_next_one_works(
    engine: Engine, step_under_way: Callable[[], bool], way: str
) -> None:
    cancelled = engine.stats().cancelled
    with interrupted(step_under_way):
        WAYS[way](engine)
    HeldBackend.go.set()
    wait_for(lambda: idle(engine))
    assert engine.stats().cancelled > cancelled or way in ONE_STEP
    assert WAYS[way](engine)


@pytest.mark.parametrize("way", ["invoke", "batch", "stream", "rerank", "evaluate", "structured_batch"])
def test_a_notebooks_cell_is_interrupted(engine: Engine, step_under_way: Callable[[], bool], way: str) -> None:
    """An event loop runs in the main thread, and the cell calls a method that blocks."""

    async def cell() -> object:
        return WAYS[way](engine)

    loop = asyncio.new_event_loop()
    with interrupted(step_under_way):
        loop.run_until_complete(cell())
    HeldBackend.go.set()
    wait_for(lambda: idle(engine))
    assert loop.run_until_complete(cell())
    loop.close()


def test_answers_that_are_there_are_kept(engine: Engine) -> None:
    kept = []
    HeldBackend.began.clear()
    HeldBackend.go.clear()
    try:
        with interrupted(HeldBackend.began.is_set):
            # The second prompt is asked when the first answer is there.
            for answer in chat(engine).batch_as_completed(PROMPTS, {"max_concurrency": 1}):
                kept.append(answer)
                HeldBackend.held.set()
    finally:
        HeldBackend.go.set()
        HeldBackend.held.clear()
    assert kept
    wait_for(lambda: idle(engine))


@pytest.mark.parametrize("way", ["batch_as_completed", "abatch_as_completed"])
def test_leaving_a_list_early_frees_the_engine(engine: Engine, step_under_way: Callable[[], bool], way: str) -> None:
    async def leave() -> None:
        answers = chat(engine).abatch_as_completed(PROMPTS)
        task = asyncio.ensure_future(anext(aiter(answers)))
        await asyncio.to_thread(wait_for, step_under_way)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    if way == "abatch_as_completed":
        asyncio.run(leave())
        HeldBackend.go.set()
    else:
        HeldBackend.held.clear()
        answers = chat(engine).batch_as_completed(PROMPTS, {"max_concurrency": 1})
        next(answers)
        answers.close()  # type: ignore[attr-defined]
    wait_for(lambda: idle(engine))
