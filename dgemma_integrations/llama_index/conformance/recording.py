"""Recorders of the events that a call sends to LlamaIndex's instrumentation and callback handlers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent


class RecordedEvents(BaseEventHandler):
    """Keeps every instrumentation event."""

    _events: list[BaseEvent] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """The class's name in stored events."""
        return "RecordedEvents"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Keep an event."""
        self._events.append(event)

    def named(self, *names: str) -> list[Any]:
        """The events of these classes, in order."""
        return [event for event in self._events if type(event).__name__ in names]

    @property
    def starts(self) -> list[Any]:
        """The events of calls of endpoints."""
        return self.named("LLMChatStartEvent", "LLMCompletionStartEvent")

    @property
    def ends(self) -> list[Any]:
        """The events of endpoints' answers."""
        return self.named("LLMChatEndEvent", "LLMCompletionEndEvent")

    def prompted(self) -> str:
        """All prompts and messages that the endpoints got, as text."""
        parts = []
        for event in self.starts:
            parts += [str(message) for message in getattr(event, "messages", ())] or [event.prompt]
        return "\n".join(parts)


@contextmanager
def recorded() -> Iterator[RecordedEvents]:
    """Record the instrumentation events inside this context."""
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
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **_: Any,
    ) -> str:
        """Keep the id of an LLM event that begins."""
        if event_type == CBEventType.LLM:
            self.started.append(event_id)
        return event_id

    def on_event_end(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **_: Any
    ) -> None:
        """Keep the id and the payload of an LLM event that ends."""
        if event_type == CBEventType.LLM:
            self.ended.append(event_id)
            self.payloads.append(payload or {})

    def start_trace(self, trace_id: str | None = None) -> None:
        """Traces are not kept."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Traces are not kept."""

    @property
    def failures(self) -> list[Any]:
        """The exceptions in the payloads of ended events."""
        return [payload[EventPayload.EXCEPTION] for payload in self.payloads if EventPayload.EXCEPTION in payload]
