"""What a subclass tells the suite about its LLM, and what the tests share."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import struct
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM

T = TypeVar("T")
Response: TypeAlias = ChatResponse | CompletionResponse

PLAIN = ("chat", "complete", "achat", "acomplete")
STREAMS = ("stream_chat", "stream_complete", "astream_chat", "astream_complete")
ENDPOINTS = PLAIN + STREAMS
ASYNC = ("achat", "acomplete", "astream_chat", "astream_complete")

each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)
each_stream = pytest.mark.parametrize("endpoint", STREAMS)
each_async = pytest.mark.parametrize("endpoint", ASYNC)


class ConformanceBase:
    """Settings of the suite. A subclass overrides what differs, as a property or as a plain class attribute.

    ``known_failures`` names the tests that are known to fail and why. They are marked as strict expected failures, so
    that a subclass stays green while a defect is open and turns red once it is fixed and the entry is out of date.
    """

    # --- what is tested ---

    @property
    def llm_class(self) -> type[LLM]:
        """The class under test."""
        raise NotImplementedError

    @property
    def llm_params(self) -> dict[str, Any]:
        """Keyword arguments of its constructor; best seeded, cold and with a small answer."""
        return {}

    @property
    def slow_params(self) -> dict[str, Any]:
        """Arguments on top of ``llm_params`` for one answer that takes a while: several chunks, half a second or more.

        The tests of cancelling and of the event loop use them.
        """
        return {}

    @property
    def other_params(self) -> dict[str, Any]:
        """One setting, with another value than in ``llm_params``, that changes answers; empty if there is none."""
        return {}

    @property
    def known_failures(self) -> Mapping[str, str]:
        """Test name, with or without its ``[parameters]``, to the reason of its failure."""
        return {}

    # --- what the LLM can do ---

    @property
    def has_tools(self) -> bool:
        """Whether it calls tools by itself (``metadata.is_function_calling_model``)."""
        return issubclass(self.llm_class, FunctionCallingLLM)

    @property
    def can_force_tools(self) -> bool:
        """Whether ``tool_required=True`` and ``tool_choice="name"`` make it call a tool, whatever it is asked."""
        return self.has_tools

    @property
    def has_structured_output(self) -> bool:
        """Whether ``structured_predict`` gives an object that is valid, whatever the model would rather say."""
        return self.can_force_tools

    streams_structured_output: bool = True
    """Whether the last object of ``stream_structured_predict`` is as good as that of ``structured_predict``."""
    supports_images: bool = False
    """Whether it takes ``ImageBlock``. If not, it must refuse them by name."""
    reports_usage: bool = True
    """Whether responses carry token counts."""
    streams_tokens: bool = True
    """Whether a stream has more than one chunk."""
    is_deterministic: bool = True
    """Whether equal calls give equal answers."""
    has_native_async: bool = True
    """Whether async methods leave the event loop free."""
    checks_context: bool = True
    """Whether it refuses prompts that do not fit its context window."""
    supports_stop: bool = True
    """Whether it takes stop strings per call."""
    supports_max_tokens: bool = True
    """Whether it takes a limit of the answer per call."""
    refuses_unknown_kwargs: bool = False
    """Whether it refuses keyword arguments that it does not know (instead of handing them to a server)."""
    pickles: bool = True
    """Whether it claims to survive pickling, which ``IngestionPipeline(num_workers=...)`` needs."""
    dumps: bool = True
    """Whether ``from_dict(to_dict())`` gives the same LLM back."""

    max_tokens_kwarg: str = "max_tokens"
    stop_kwarg: str = "stop"
    structured_max_tokens: int = 256
    """Enough for the objects of the structured tests: three levels, short strings, lists of two."""
    prompt: str = "Say hello to Anna in one short sentence."
    other_prompts: tuple[str, ...] = ("Name a river.", "Name a colour.", "Name a city.")
    formatted_prompt: str | None = None
    """``prompt`` as its chat template writes it; None if there is no template, or if nobody needs to see it."""
    thinking_params: Mapping[str, Any] | None = None
    """Arguments on top of ``llm_params`` that make it think aloud before it answers; None if it cannot."""
    thinking_marks: tuple[str, ...] = ("<think>", "</think>", "<|channel>", "<channel|>")
    """Markup of thoughts, which belongs in no answer."""
    call_limit: float = 60.0
    """Seconds after which a call counts as hanging."""

    def busy(self, llm: LLM) -> bool | None:
        """Whether the model works right now; None if that cannot be told."""
        return None

    # --- fixtures ---

    @pytest.fixture(autouse=True)
    def _mark_known_failures(self, request: pytest.FixtureRequest) -> None:
        name = request.node.name
        reason = self.known_failures.get(name) or self.known_failures.get(name.split("[")[0])
        if reason:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    def llm(self, _mark_known_failures: None) -> LLM:
        """A new LLM for each test."""
        return self.make()

    # --- helpers ---

    def make(self, **overrides: Any) -> LLM:
        """An LLM with some settings changed."""
        return self.llm_class(**{**self.llm_params, **overrides})

    def make_slow(self) -> LLM:
        """An LLM whose answers take a while."""
        return self.make(**self.slow_params)

    def limit(self, tokens: int) -> dict[str, Any]:
        """The keyword argument that limits one answer, if the LLM has one."""
        return {self.max_tokens_kwarg: tokens} if self.supports_max_tokens else {}

    def call(self, llm: LLM, endpoint: str, prompt: Any = None, **kwargs: Any) -> list[Any]:
        """All responses of one call: one, or a stream's chunks. Async endpoints get an event loop of their own."""
        argument = self.argument(endpoint, prompt)
        if endpoint in ASYNC:
            return run(self.acall(llm, endpoint, prompt, **kwargs))
        result = getattr(llm, endpoint)(argument, **kwargs)
        return list(result) if endpoint in STREAMS else [result]

    async def acall(self, llm: LLM, endpoint: str, prompt: Any = None, **kwargs: Any) -> list[Any]:
        """As :meth:`call`, for async endpoints on the running loop."""
        result = await getattr(llm, endpoint)(self.argument(endpoint, prompt), **kwargs)
        return [chunk async for chunk in result] if endpoint in STREAMS else [result]

    def argument(self, endpoint: str, prompt: Any = None) -> Any:
        """A prompt the way an endpoint takes it."""
        prompt = self.prompt if prompt is None else prompt
        return chat(prompt) if isinstance(prompt, str) and "chat" in endpoint else prompt

    def answer(self, llm: LLM, endpoint: str, prompt: Any = None, **kwargs: Any) -> str:
        """The text of one call."""
        return text_of(self.call(llm, endpoint, prompt, **kwargs)[-1])

    def wait_until_idle(self, llm: LLM, seconds: float = 10.0) -> None:
        """Fails if the model still works after some seconds; returns at once where that cannot be told."""
        deadline = time.monotonic() + seconds
        while self.busy(llm):
            assert time.monotonic() < deadline, f"still generating {seconds:g} s after nobody wants the answer"
            time.sleep(0.01)


def needs(*flags: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Skips a test, with the reason, where a flag of the subclass is off."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def wrapper(self: ConformanceBase, *args: Any, **kwargs: Any) -> None:
            for flag in flags:
                value = getattr(self, flag)
                if value is None or value is False:
                    pytest.skip(f"{type(self).__name__}.{flag} is {value}")
            test(self, *args, **kwargs)

        return wrapper

    return decorate


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
    """As :func:`usage_of`; skips the test where there is none, which ``test_usage_is_counted_once`` reports."""
    usage = usage_of(response)
    if not usage[0]:
        pytest.skip("the response has no usage")
    return usage


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on a new loop, which never becomes the thread's current one: pytest plugins have theirs."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(coroutine)


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of some work, or a failed test if it hangs."""
    return together(seconds, [work])[0]


def together(seconds: float, works: Sequence[Callable[[], T]]) -> list[T]:
    """Runs each piece of work in a thread of its own, all at once.

    Raises:
        AssertionError: one of them hangs.
        BaseException: the first one's error.
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


def png(width: int = 8, height: int = 8) -> bytes:
    """A small red picture."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\x00" + b"\xff\x00\x00" * width) * height
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


class RecordedEvents(BaseEventHandler):
    """Keeps every instrumentation event."""

    _events: list[BaseEvent] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "RecordedEvents"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        self._events.append(event)

    def named(self, *names: str) -> list[Any]:
        return [event for event in self._events if type(event).__name__ in names]

    @property
    def starts(self) -> list[Any]:
        return self.named("LLMChatStartEvent", "LLMCompletionStartEvent")

    @property
    def ends(self) -> list[Any]:
        return self.named("LLMChatEndEvent", "LLMCompletionEndEvent")

    def prompted(self) -> str:
        """Everything that went to the endpoints, as text."""
        parts = []
        for event in self.starts:
            parts += [str(message) for message in getattr(event, "messages", ())] or [event.prompt]
        return "\n".join(parts)


@contextmanager
def recorded() -> Iterator[RecordedEvents]:
    """Instrumentation events of what runs inside."""
    dispatcher, handler = get_dispatcher(), RecordedEvents()
    dispatcher.add_event_handler(handler)
    try:
        yield handler
    finally:
        dispatcher.event_handlers.remove(handler)


class RecordingHandler(BaseCallbackHandler):
    """Keeps the start and end of every LLM event of a callback manager."""

    def __init__(self) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self.started: list[str] = []
        self.ended: list[str] = []
        self.payloads: list[dict[str, Any]] = []

    def on_event_start(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **_: Any
    ) -> str:
        if event_type == CBEventType.LLM:
            self.started.append(event_id)
        return event_id

    def on_event_end(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **_: Any
    ) -> None:
        if event_type == CBEventType.LLM:
            self.ended.append(event_id)
            self.payloads.append(payload or {})

    def start_trace(self, trace_id: str | None = None) -> None:
        pass

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        pass

    @property
    def failures(self) -> list[Any]:
        return [payload[EventPayload.EXCEPTION] for payload in self.payloads if EventPayload.EXCEPTION in payload]
