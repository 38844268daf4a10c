"""The engine's answers as LangChain messages: whole, in chunks, and as protocol events (``stream_events`` v3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCall, ToolCallChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from dgemma_core.api.events import BlockEvent, DraftEvent, FinishedEvent, Generation
from dgemma_core.api.messages import ToolCall as EngineToolCall
from dgemma_integrations.langchain.settings import PROVIDER, generation_info

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData


def chat_result(generation: Generation, model: str) -> ChatResult:
    """The message of ``invoke``."""
    message = AIMessage(
        content=_content(generation),
        tool_calls=[ToolCall(name=c.name, args=dict(c.arguments), id=c.id) for c in generation.tool_calls],
        usage_metadata=usage_metadata(generation),
        response_metadata=generation_info(generation, model),
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


def _content(generation: Generation) -> str | list[str | dict[str, Any]]:
    """Plain text, or content blocks where there is reasoning to show."""
    if not generation.reasoning:
        return generation.text
    blocks: list[str | dict[str, Any]] = [{"type": "reasoning", "reasoning": generation.reasoning}]
    return [*blocks, {"type": "text", "text": generation.text}] if generation.text else blocks


def usage_metadata(generation: Generation) -> UsageMetadata:
    """Tokens of the prompt and of what was kept of the answer, not canvas positions."""
    usage = generation.usage
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
        output_token_details=OutputTokenDetails(reasoning=usage.reasoning_tokens),
    )


class ChunkWriter:
    """A request's events as chunks that add up to the message of ``invoke``.

    Plain text stays a string. From the first reasoning on, content comes in blocks, and every block and every call has
    a number of its own: LangChain merges by number, whatever the types are, and would write a call into a thought.

    Args:
        model: what ``response_metadata`` names.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._kind = ""
        self._index = -1
        self._plain = True

    def chunk(self, event: BlockEvent | FinishedEvent) -> ChatGenerationChunk:
        """The next chunk; the last one is empty and carries everything that must not be merged twice."""
        if isinstance(event, FinishedEvent):
            message = AIMessageChunk(
                content="",
                usage_metadata=usage_metadata(event.generation),
                response_metadata=generation_info(event.generation, self._model),
                chunk_position="last",
            )
            return ChatGenerationChunk(message=message)
        content = self._blocks(event)
        calls = [self._call(call) for call in event.tool_calls]
        return ChatGenerationChunk(message=AIMessageChunk(content=content, tool_call_chunks=calls))

    def _blocks(self, event: BlockEvent) -> str | list[str | dict[str, Any]]:
        reasoning = []
        if event.reasoning:
            self._plain = False
            index = self._number("reasoning")
            reasoning = [{"type": "reasoning", "reasoning": event.reasoning, "index": index}]
        if event.text:
            index = self._number("text")
        if self._plain:
            return event.text
        text = [{"type": "text", "text": event.text, "index": index}] if event.text else []
        # An empty list would be content of its own beside a string.
        return [*reasoning, *text] or ""

    def _call(self, call: EngineToolCall) -> ToolCallChunk:
        # Text that follows a call is a block of its own, so it needs a number, too.
        self._plain = False
        return ToolCallChunk(name=call.name, args=_json(call), id=call.id, index=self._number("call", new=True))

    def _number(self, kind: str, new: bool = False) -> int:
        if new or kind != self._kind:
            self._kind = kind
            self._index += 1
        return self._index


class EventWriter:
    """A request's events as LangChain's protocol events, drafts included.

    A draft is an event of its own, ``{"event": "draft", "text", "step", "entropy"}``; readers that do not know it pass
    over it, and it is no part of the message.

    Args:
        model: named by the first event and by ``response_metadata``.
        message_id: of the message; empty where the reader has one.
    """

    def __init__(self, model: str, message_id: str) -> None:
        self._model = model
        self._id = message_id
        self._begun = False
        self._open: dict[str, Any] | None = None  # The block being written.
        self._index = -1

    def events(self, event: BlockEvent | DraftEvent | FinishedEvent) -> Iterator[MessagesData]:
        """What to send for one event of the request."""
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
                "metadata": generation_info(event.generation, self._model),
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

    def _call(self, call: EngineToolCall) -> Iterator[dict[str, Any]]:
        yield from self._close()
        named = {"id": call.id, "name": call.name}
        yield self._start({"type": "tool_call_chunk", **named, "args": ""})
        delta = {"type": "tool-call-delta", "args": _json(call)}
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


def _json(call: EngineToolCall) -> str:
    return json.dumps(dict(call.arguments), ensure_ascii=False)
