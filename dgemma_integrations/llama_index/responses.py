"""The engine's generations and events to LlamaIndex's responses and stream chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole, TextBlock

from dgemma_core.events import BlockEvent, DraftEvent, Event, Generation
from dgemma_integrations._common import generation_numbers

Response = TypeVar("Response", bound=ChatResponse | CompletionResponse)


def chat_response(text: str, **fields: Any) -> ChatResponse:
    """A chat response with the whole text in one block: ``ChatMessage.content`` puts newlines between blocks."""
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text=text)]), **fields)


def completion_response(text: str, **fields: Any) -> CompletionResponse:
    """A completion response."""
    return CompletionResponse(text=text, **fields)


def finished_response(
    respond: Callable[..., Response], generation: Generation, model: str, delta: str | None = None
) -> Response:
    """The response that carries the usage: the only one of a call, or the last chunk of a stream."""
    # LlamaIndex's token counter reads raw["usage"]; other tools read additional_kwargs.
    usage = _usage(generation)
    return respond(generation.text, delta=delta, raw=_raw(generation, model, usage), additional_kwargs=dict(usage))


class StreamChunks(Generic[Response]):
    """Turns the events of one request into stream chunks: cumulative text and what is new in it.

    Args:
        respond: :func:`chat_response` or :func:`completion_response`.
        model: the model's name, for ``raw``.
    """

    def __init__(self, respond: Callable[..., Response], model: str) -> None:
        self._respond = respond
        self._model = model
        self._text = ""

    def chunk(self, event: Event) -> Response | None:
        """The chunk for an event, or None where the event has nothing to show."""
        if isinstance(event, DraftEvent):
            draft = {"text": event.text, "step": event.step, "entropy": list(event.entropy)}
            return self._respond(self._text, delta="", additional_kwargs={"draft": draft})
        if isinstance(event, BlockEvent):
            if not event.text:
                return None
            self._text += event.text
            return self._respond(self._text, delta=event.text)
        generation = event.generation
        return finished_response(self._respond, generation, self._model, delta=generation.text[len(self._text) :])


def _usage(generation: Generation) -> dict[str, int]:
    usage = generation.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _raw(generation: Generation, model: str, usage: dict[str, int]) -> dict[str, Any]:
    """Small and JSON-able: it is kept in events and by agents."""
    return {
        "model": model,
        "usage": usage,
        "cached_tokens": generation.usage.cached_tokens,
        **generation_numbers(generation),
    }
