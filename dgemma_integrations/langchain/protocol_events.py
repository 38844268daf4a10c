"""A request's events -> LangChain's protocol events (``stream_events(version="v3")``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from dgemma_core.api.events import BlockEvent, DraftEvent, FinishedEvent
from dgemma_core.api.messages import ToolCall
from dgemma_integrations.langchain.responses import arguments_json, response_metadata, usage_metadata
from dgemma_integrations.langchain.settings import PROVIDER

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData


class EventWriter:
    """Turns a request's events into LangChain's protocol events, with drafts.

    A draft is an event of its own: ``{"event": "draft", "text", "step", "entropy"}``. It is no part of the message, and
    readers that do not know it ignore it.

    Args:
        model: the model's name, for the first event and for ``response_metadata``.
        message_id: of the message; empty if the reader has an id.
    """

    def __init__(self, model: str, message_id: str) -> None:
        self._model = model
        self._id = message_id
        self._begun = False
        self._open: dict[str, Any] | None = None  # The block being written.
        self._index = -1

    def events(self, event: BlockEvent | DraftEvent | FinishedEvent) -> Iterator[MessagesData]:
        """The protocol events for one event of the request."""
        for message in self._events(event):
            yield cast("MessagesData", message)

    def _events(self, event: BlockEvent | DraftEvent | FinishedEvent) -> Iterator[dict[str, Any]]:
        if not self._begun:
            self._begun = True
            metadata = {"provider": PROVIDER, "model": self._model}
            yield {"event": "message-start", "role": "ai", "id": self._id, "metadata": metadata}
        if isinstance(event, DraftEvent):
            yield {"event": "draft", "text": event.text, "step": event.step, "entropy": list(event.entropy)}
        elif isinstance(event, BlockEvent):
            yield from self._delta("reasoning", event.reasoning)
            yield from self._delta("text", event.text)
            for call in event.tool_calls:
                yield from self._call(call)
        else:
            yield from self._close()
            yield {
                "event": "message-finish",
                "usage": dict(usage_metadata(event.generation)),
                "metadata": response_metadata(event.generation, self._model),
            }

    def _delta(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        if not text:
            return
        if self._open is None or self._open["type"] != kind:
            yield from self._close()
            yield self._start({"type": kind, kind: ""})
            self._open = {"type": kind, kind: ""}
        self._open[kind] += text
        yield {"event": "content-block-delta", "index": self._index, "delta": {"type": f"{kind}-delta", kind: text}}

    def _call(self, call: ToolCall) -> Iterator[dict[str, Any]]:
        yield from self._close()
        named = {"id": call.id, "name": call.name}
        yield self._start({"type": "tool_call_chunk", **named, "args": ""})
        delta = {"type": "tool-call-delta", "args": arguments_json(call)}
        yield {"event": "content-block-delta", "index": self._index, "delta": delta}
        yield self._finish({"type": "tool_call", **named, "args": dict(call.arguments)})

    def _start(self, block: dict[str, Any]) -> dict[str, Any]:
        self._index += 1
        return {"event": "content-block-start", "index": self._index, "content": block}

    def _finish(self, block: dict[str, Any]) -> dict[str, Any]:
        return {"event": "content-block-finish", "index": self._index, "content": block}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._open is not None:
            yield self._finish(self._open)
            self._open = None
