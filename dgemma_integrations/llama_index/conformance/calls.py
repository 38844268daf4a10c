"""The eight endpoints: helpers that call them and read their responses."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse

T = TypeVar("T")
Response: TypeAlias = ChatResponse | CompletionResponse

PLAIN = ("chat", "complete", "achat", "acomplete")
STREAMS = ("stream_chat", "stream_complete", "astream_chat", "astream_complete")
ENDPOINTS = PLAIN + STREAMS
ASYNC = ("achat", "acomplete", "astream_chat", "astream_complete")

each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)
each_stream = pytest.mark.parametrize("endpoint", STREAMS)
each_async = pytest.mark.parametrize("endpoint", ASYNC)


def chat(*texts: str) -> list[ChatMessage]:
    """User messages."""
    return [ChatMessage(role="user", content=text) for text in texts]


def text_of(response: Response) -> str:
    """A response's text."""
    if isinstance(response, CompletionResponse):
        return response.text
    return response.message.content or ""


def usage_of(response: Response) -> tuple[int, int]:
    """Prompt and completion tokens, read where ``TokenCountingHandler`` reads them."""
    from llama_index.core.callbacks.token_counting import get_tokens_from_response

    return get_tokens_from_response(response)


def usage_or_skip(response: Response) -> tuple[int, int]:
    """As :func:`usage_of`, but skips the test if there is no usage. ``test_usage_is_counted_once`` reports that."""
    usage = usage_of(response)
    if not usage[0]:
        pytest.skip("the response has no usage")
    return usage


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new loop. The thread's current loop does not change, because pytest plugins use it."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(coroutine)


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of ``work``. The test fails if it hangs."""
    return together(seconds, [work])[0]


def together(seconds: float, works: Sequence[Callable[[], T]]) -> list[T]:
    """Run each piece of work in its own thread, all at once.

    Raises:
        AssertionError: one of them hangs.
        BaseException: the error of the first one that fails.
    """
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}
    start = threading.Barrier(len(works))

    def body(number: int, work: Callable[[], T]) -> None:
        start.wait()
        try:
            results[number] = work()
        except BaseException as error:
            errors[number] = error

    threads = []
    for number, work in enumerate(works):
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(body, number, work), daemon=True)
        thread.start()
        threads.append(thread)
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hanging = sum(thread.is_alive() for thread in threads)
    assert not hanging, f"{hanging} of {len(threads)} calls did not return within {seconds:g} s"
    for number in sorted(errors):
        raise errors[number]
    return [results[number] for number in range(len(works))]
