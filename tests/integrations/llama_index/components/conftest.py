"""Every component of LlamaIndex's core that needs no tool calls, on the embedded checkpoint.

The answers are short and of no use; what is tested is what holds for any weights: types, sources, streams that add up
to the text, one event with its usage per request, and how many requests the engine has at a time. LlamaIndex's parsers
may refuse what a small model writes; where that is so a test says which error that is, and no other one passes.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.query_engine import (
    RetrieverQueryEngine,
)
from llama_index.core.schema import NodeWithScore, TextNode

from dgemma_core import Engine, LoadSpec
from dgemma_core.api.handle import RequestHandle
from dgemma_integrations.llama_index import DiffusionGemma

QUESTION = "When was the Vexal bridge built?"
RESPONSE = "The Vexal bridge was built in 1931."
PASSAGES = (
    "The Vexal bridge was built in 1931.",
    "The Mirdo museum opened in 1978.",
    "The Quandel bakery sells rye bread.",
    "The Orvin tower is 212 metres tall.",
)


# Of every module here.
MARKS = [
    # LlamaIndex's chat memory leaves its in-memory database to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class WatchedEngine(Engine):
    """An engine that remembers its requests and how many of them were open at a time."""

    def __init__(self, spec: LoadSpec) -> None:
        super().__init__(spec)
        self._watch = threading.Lock()
        self.start_over()

    def start_over(self) -> None:
        self.handles: list[RequestHandle] = []
        self.most_open = 0

    def submit(self, *args: Any, **kwargs: Any) -> RequestHandle:
        with self._watch:
            return self._noted(super().submit(*args, **kwargs))

    async def asubmit(self, *args: Any, **kwargs: Any) -> RequestHandle:
        handle = await super().asubmit(*args, **kwargs)
        with self._watch:
            return self._noted(handle)

    def _noted(self, handle: RequestHandle) -> RequestHandle:
        self.handles.append(handle)
        self.most_open = max(self.most_open, sum(not handle.done() for handle in self.handles))
        return handle


@pytest.fixture(scope="session")
def watched_engine() -> Iterator[WatchedEngine]:
    with WatchedEngine(LoadSpec()) as engine:
        engine.load()
        yield engine


@pytest.fixture
def engine(watched_engine: WatchedEngine, events: Any) -> Iterator[WatchedEngine]:
    """The engine; after each test, every request it had must have been one event that says what it used."""
    watched_engine.start_over()
    yield watched_engine
    ends = [e for e in events._events if type(e).__name__ in ("LLMChatEndEvent", "LLMCompletionEndEvent")]
    used = sorted(handle.result().usage.completion_tokens for handle in watched_engine.handles)
    assert sorted(end.response.raw["usage"]["completion_tokens"] for end in ends) == used
    assert all(end.response.raw["usage"]["prompt_tokens"] > 0 for end in ends)


@pytest.fixture
def llm(engine: WatchedEngine) -> Iterator[DiffusionGemma]:
    """Answers of at most eight tokens in two steps: nobody reads them."""
    llm = DiffusionGemma(engine=engine, seed=7, max_tokens=8, canvas_length=16, max_denoising_steps=2)
    before = Settings._llm, Settings._embed_model
    # Some components take what the settings hold, whatever they are given.
    Settings.llm, Settings.embed_model = llm, MockEmbedding(embed_dim=8)
    yield llm
    Settings._llm, Settings._embed_model = before


@pytest.fixture
def query_engine(llm: DiffusionGemma, retriever: Callable[..., Any]) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(retriever(*PASSAGES, top_k=2), llm=llm)


def passages(count: int = 4) -> list[TextNode]:
    return [TextNode(text=f"{PASSAGES[i % 4]} Part {i}.", id_=f"node-{i}") for i in range(count)]


def scored(count: int = 4) -> list[NodeWithScore]:
    return [NodeWithScore(node=node, score=0.5) for node in passages(count)]


async def collect(stream: AsyncIterator[str]) -> str:
    return "".join([part async for part in stream])


def parsed(call: Callable[[], Any], *refusals: type[Exception]) -> Any:
    """What a component made of the answer, or None where its own parser refused it with one of these errors."""
    try:
        return call()
    except refusals:
        return None
