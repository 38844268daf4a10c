"""Events, callbacks and token counts: one LLM call is one of each."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.callbacks import CBEventType

from dgemma_core.errors import ContextOverflowError
from dgemma_integrations.llama_index import DiffusionGemma

PROMPT = "Name a river."
CHAT = [ChatMessage(content=PROMPT)]


async def call(llm: DiffusionGemma, endpoint: str, **kwargs: Any) -> Any:
    """The last response of an endpoint."""
    argument = CHAT if "chat" in endpoint else PROMPT
    result = getattr(llm, endpoint)(argument, **kwargs)
    if endpoint.startswith("a"):
        result = await result
    if "astream" in endpoint:
        return [chunk async for chunk in result][-1]
    return list(result)[-1] if "stream" in endpoint else result


ENDPOINTS = [
    "chat",
    "complete",
    "stream_chat",
    "stream_complete",
    "achat",
    "acomplete",
    "astream_chat",
    "astream_complete",
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_one_event_and_the_right_count(llm: DiffusionGemma, events: Any, endpoint: str) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm.callback_manager = CallbackManager([counter])
    response = await call(llm, endpoint)
    kind = "LLMChat" if "chat" in endpoint else "LLMCompletion"
    other = "LLMCompletion" if "chat" in endpoint else "LLMChat"
    assert [events.count(f"{kind}StartEvent"), events.count(f"{kind}EndEvent")] == [1, 1]
    assert [events.count(f"{other}StartEvent"), events.count(f"{other}EndEvent")] == [0, 0]
    (count,) = counter.llm_token_counts
    assert count.prompt_token_count == response.raw["usage"]["prompt_tokens"]
    assert count.completion_token_count == response.raw["usage"]["completion_tokens"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_an_error_is_one_event_too(llm: DiffusionGemma, endpoint: str) -> None:
    manager = CallbackManager([recorder := TokenCountingHandler(tokenizer=str.split)])
    llm.callback_manager = manager
    with pytest.raises(ContextOverflowError):
        await call(llm, endpoint, max_tokens=10**6)
    assert len(recorder.llm_token_counts) == 1
    assert CBEventType.LLM not in recorder.event_ends_to_ignore
    llm.callback_manager = CallbackManager([])
    assert await call(llm, endpoint)


def test_the_start_event_says_what_runs(llm: DiffusionGemma, events: Any) -> None:
    llm.complete(PROMPT)
    (start,) = [event for event in events._events if type(event).__name__ == "LLMCompletionStartEvent"]
    assert start.model_dict["model"] == start.model_dict["model_name"] == "embedded"
    assert start.model_dict["seed"] == 7
    assert start.model_dict["class_name"] == "DiffusionGemma"


def test_the_payload_touches_no_file(tmp_path: Any) -> None:
    # It is made before every call, also on an event loop.
    assert DiffusionGemma(model=str(tmp_path / "nowhere")).to_payload()["is_chat_model"] is True


class CountingLimiter:
    """A rate limiter that lets everything through."""

    def __init__(self) -> None:
        self.acquired = 0

    def acquire(self) -> None:
        self.acquired += 1

    async def async_acquire(self) -> None:
        self.acquired += 1


async def test_the_rate_limiter_is_asked_once_per_call(llm: DiffusionGemma) -> None:
    limiter = CountingLimiter()
    llm.rate_limiter = limiter
    for endpoint in ENDPOINTS:
        await call(llm, endpoint, max_tokens=2)
    assert limiter.acquired == len(ENDPOINTS)
