"""The engine's generations and events -> LlamaIndex's responses and stream chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ContentBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
)

from dgemma_core.api.events import BlockEvent, DraftEvent, Event, Generation, TokenLogprob
from dgemma_integrations.llama_index.logprobs import log_probs
from dgemma_integrations.llama_index.tools import call_blocks, openai_calls
from dgemma_integrations.shared.numbers import generation_numbers

Response = TypeVar("Response", bound=ChatResponse | CompletionResponse)
ResponseOut = TypeVar("ResponseOut", bound=ChatResponse | CompletionResponse, covariant=True)


class Respond(Protocol[ResponseOut]):
    """Makes a response from a text. At the end of an answer it also gets the whole generation."""

    def __call__(self, text: str, generation: Generation | None = None, **fields: Any) -> ResponseOut:
        """The response with these fields."""


class ChatRespond:
    """Makes chat responses.

    Args:
        names: declared name -> own name, for tools whose names differ.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = names or {}

    def __call__(self, text: str, generation: Generation | None = None, **fields: Any) -> ChatResponse:
        """The response, with text, thoughts and tool calls as content blocks in this order."""
        # The text is one block, because ChatMessage.content puts newlines between blocks. It comes first, because
        # DocumentContextExtractor reads the first block only.
        calls = () if generation is None else call_blocks(generation.tool_calls, self._names)
        blocks: list[ContentBlock] = [TextBlock(text=text)] if text or not calls else []
        if generation is not None and generation.reasoning:
            blocks.append(ThinkingBlock(content=generation.reasoning))
            # Agents pass this on to readers of their events.
            more = {**fields.pop("additional_kwargs", {}), "thinking_delta": generation.reasoning}
            fields["additional_kwargs"] = more
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[*blocks, *calls])
        if calls:
            message.additional_kwargs["tool_calls"] = openai_calls(calls)
            if generation is not None and generation.finish_reason == "length":
                # An agent keeps the message, and may not run a call that was cut.
                message.additional_kwargs["finish_reason"] = "length"
        return ChatResponse(message=message, **fields)


def completion_response(text: str, generation: Generation | None = None, **fields: Any) -> CompletionResponse:
    """A completion response."""
    return CompletionResponse(text=text, **fields)


def finished_response(respond: Respond[Response], generation: Generation, model: str) -> Response:
    """The only response of a call."""
    return _last_response(respond, generation, model, logprobs=log_probs(generation.logprobs))


def _last_response(respond: Respond[Response], generation: Generation, model: str, **fields: Any) -> Response:
    """The response with the usage."""
    # LlamaIndex's token counter reads raw["usage"]; other tools read additional_kwargs.
    usage = _usage(generation)
    raw = _raw(generation, model, usage)
    return respond(generation.text, generation, raw=raw, additional_kwargs=dict(usage), **fields)


class StreamChunks(Generic[Response]):
    """Turns the events of one request into stream chunks, with the text so far, and the new text with its logprobs.

    Args:
        respond: makes the chunks.
        model: the model's name, for ``raw``.
    """

    def __init__(self, respond: Respond[Response], model: str) -> None:
        self._respond = respond
        self._model = model
        self._text = ""
        self._unsent: list[TokenLogprob] | None = None

    def chunk(self, event: Event) -> Response | None:
        """The chunk for an event, or None for an event without new text."""
        if isinstance(event, DraftEvent):
            draft = {"text": event.text, "step": event.step, "entropy": list(event.entropy)}
            return self._respond(self._text, delta="", additional_kwargs={"draft": draft})
        if isinstance(event, BlockEvent):
            if event.logprobs is not None:
                self._unsent = [*(self._unsent or ()), *event.logprobs]
            if not event.text:
                return None
            self._text += event.text
            return self._respond(self._text, delta=event.text, logprobs=self._new_logprobs())
        generation = event.generation
        delta = generation.text[len(self._text) :]
        return _last_response(self._respond, generation, self._model, delta=delta, logprobs=self._new_logprobs())

    def _new_logprobs(self) -> list[list[LogProb]] | None:
        found = log_probs(self._unsent)
        self._unsent = None if found is None else []
        return found


def _usage(generation: Generation) -> dict[str, int]:
    usage = generation.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _raw(generation: Generation, model: str, usage: dict[str, int]) -> dict[str, Any]:
    """The response's ``raw``: small and plain JSON, because events and agents keep it."""
    return {
        "model": model,
        "usage": usage,
        "cached_tokens": generation.usage.cached_tokens,
        **generation_numbers(generation),
    }
