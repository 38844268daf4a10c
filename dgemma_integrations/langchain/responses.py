"""The engine's answers -> LangChain messages, whole and in chunks."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCall, ToolCallChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from dgemma_core.api.events import BlockEvent, FinishedEvent, Generation
from dgemma_core.api.messages import ToolCall as EngineToolCall
from dgemma_integrations.langchain.settings import PROVIDER
from dgemma_integrations.shared.logprobs import chat_logprobs
from dgemma_integrations.shared.numbers import generation_numbers


def chat_result(generation: Generation, model: str) -> ChatResult:
    """The message of ``invoke``."""
    message = AIMessage(
        content=_content(generation),
        tool_calls=[ToolCall(name=c.name, args=dict(c.arguments), id=c.id) for c in generation.tool_calls],
        usage_metadata=usage_metadata(generation),
        response_metadata=response_metadata(generation, model),
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


def _content(generation: Generation) -> str | list[str | dict[str, Any]]:
    """Plain text, or content blocks if there is reasoning."""
    if not generation.reasoning:
        return generation.text
    blocks: list[str | dict[str, Any]] = [{"type": "reasoning", "reasoning": generation.reasoning}]
    return [*blocks, {"type": "text", "text": generation.text}] if generation.text else blocks


def usage_metadata(generation: Generation) -> UsageMetadata:
    """Tokens of the prompt and kept tokens of the answer, not canvas positions."""
    usage = generation.usage
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
        output_token_details=OutputTokenDetails(reasoning=usage.reasoning_tokens),
    )


class ChunkWriter:
    """Turns a request's events into chunks that add up to the message of ``invoke``.

    Plain text stays a string. From the first reasoning or call on, content comes in blocks. Every block and every call
    then has its own number, because LangChain merges by number and ignores types.

    Args:
        model: the model's name, for ``response_metadata``.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._kind = ""
        self._index = -1
        self._plain = True

    def chunk(self, event: BlockEvent | FinishedEvent) -> ChatGenerationChunk:
        """The next chunk. The last one has no text but usage and metadata, so that they are merged once."""
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
        # LangChain joins the lists of all chunks, so each chunk has its own tokens only.
        metadata = {} if event.logprobs is None else {"logprobs": chat_logprobs(event.logprobs)}
        message = AIMessageChunk(content=content, tool_call_chunks=calls, response_metadata=metadata)
        return ChatGenerationChunk(message=message)

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
        # An empty list would count as content when it is merged with a string.
        return [*reasoning, *text] or ""

    def _call(self, call: EngineToolCall) -> ToolCallChunk:
        # Text after a call is a block of its own, so it needs a number, too.
        self._plain = False
        return ToolCallChunk(
            name=call.name, args=arguments_json(call), id=call.id, index=self._number("call", new=True)
        )

    def _number(self, kind: str, new: bool = False) -> int:
        if new or kind != self._kind:
            self._kind = kind
            self._index += 1
        return self._index


def generation_info(generation: Generation, model: str) -> dict[str, Any]:
    """What both kinds of models say of an answer, without log-probabilities."""
    return {"model_name": model, "model_provider": PROVIDER, **generation_numbers(generation)}


def response_metadata(generation: Generation, model: str) -> dict[str, Any]:
    """``response_metadata`` of a whole chat message."""
    info = generation_info(generation, model)
    return info if generation.logprobs is None else {**info, "logprobs": chat_logprobs(generation.logprobs)}


def arguments_json(call: EngineToolCall) -> str:
    """A call's arguments as JSON, for LangChain's chunks."""
    return json.dumps(dict(call.arguments), ensure_ascii=False)
