"""Fixtures of the LlamaIndex adapter's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms import ChatMessage
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import PrivateAttr

from dgemma_core import Engine, LoadSpec
from dgemma_integrations.llama_index import DiffusionGemma

QUESTION = "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?"
CHAT = [ChatMessage(role="user", content=QUESTION)]

FACTS = (
    "The Vexal bridge was built in 1931. It crosses the river Toln.",
    "The Mirdo museum opened in 1978. Its director is Hanna Virel.",
    "The Quandel bakery sells rye bread. It is open on Sundays.",
    "The Orvin tower is 212 metres tall. It stands in the city of Kerl.",
)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits on the running loop, which goes on while the engine works, until something holds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 -- the engine's counters wake nobody
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def llm(embedded_engine: Engine) -> DiffusionGemma:
    """Seeded, so that equal prompts give equal answers."""
    return DiffusionGemma(engine=embedded_engine, seed=7, max_tokens=32)


@pytest.fixture
def quick_llm(embedded_engine: Engine) -> DiffusionGemma:
    """For tests that look at what is done with answers, not at the answers."""
    return DiffusionGemma(engine=embedded_engine, seed=7, max_tokens=12, canvas_length=16, max_denoising_steps=3)


@pytest.fixture(scope="module")
def small_engine() -> Iterator[Engine]:
    """The embedded checkpoint with a window of 200 tokens and a queue of two requests."""
    with Engine(LoadSpec(max_context=200, max_queue=2)) as engine:
        engine.load()
        yield engine


class RecordedEvents(BaseEventHandler):
    """Keeps every instrumentation event."""

    _events: list[BaseEvent] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "RecordedEvents"

    def handle(self, event: BaseEvent, **_: object) -> None:
        self._events.append(event)

    def count(self, name: str) -> int:
        return sum(type(event).__name__ == name for event in self._events)


@pytest.fixture
def events() -> Iterator[RecordedEvents]:
    """Instrumentation events of everything that runs in the test."""
    dispatcher, handler = get_dispatcher(), RecordedEvents()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


class KeywordRetriever(BaseRetriever):
    """Passages by the number of words they share with the question."""

    def __init__(self, passages: tuple[str, ...], top_k: int) -> None:
        super().__init__()
        self._nodes = [TextNode(text=text, id_=f"passage-{i}") for i, text in enumerate(passages)]
        self._top_k = top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = set(query_bundle.query_str.lower().strip("?").split())
        scored = [NodeWithScore(node=n, score=float(len(asked & set(n.text.lower().split())))) for n in self._nodes]
        return sorted(scored, key=lambda node: -(node.score or 0.0))[: self._top_k]


@pytest.fixture
def retriever() -> Callable[..., KeywordRetriever]:
    """Makes a keyword retriever over the given passages."""

    def make(*passages: str, top_k: int = 2) -> KeywordRetriever:
        return KeywordRetriever(passages or FACTS, top_k)

    return make
