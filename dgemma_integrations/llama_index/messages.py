"""LlamaIndex chat messages to the engine's messages, one to one and in order.

Thoughts of earlier answers and cache hints are left out: neither belongs in a prompt. Any other block that is not text
is refused by name, since an answer that ignores half of the question is worse than an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from dgemma_core.messages import Message, Role, ToolCall

_ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
# Thoughts of earlier answers and hints to other engines' caches.
_NEVER_PROMPTED = (ThinkingBlock, CachePoint)


def to_engine_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Translates a conversation.

    Args:
        messages: any roles in any order; consecutive user messages and a system message at the end are fine.

    Raises:
        NotImplementedError: a content block that is not text. Not a ``ValueError``: response synthesizers swallow
            those and answer "Empty Response".

    Example:
        >>> to_engine_messages([ChatMessage(role="user", content="Hello")])
        [Message(role='user', content='Hello', tool_calls=(), tool_call_id=None, name=None)]
    """
    return [_translate(message) for message in messages]


def _translate(message: ChatMessage) -> Message:
    role = _ROLES[message.role]
    text = _text(message, role)
    if role == "assistant":
        return Message(role, text, tool_calls=tuple(_tool_calls(message)))
    if role == "tool":
        extra = message.additional_kwargs
        return Message(role, text, tool_call_id=extra.get("tool_call_id"), name=extra.get("name"))
    return Message(role, text)


def _text(message: ChatMessage, role: Role) -> str:
    """The text blocks joined the way ``ChatMessage.content`` joins them."""
    left_out = (*_NEVER_PROMPTED, ToolCallBlock) if role == "assistant" else _NEVER_PROMPTED
    texts = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif not isinstance(block, left_out):
            raise NotImplementedError(
                f"{type(block).__name__} (block type {getattr(block, 'block_type', '?')!r}) in a {message.role.value} "
                "message is not supported: DiffusionGemma takes text only. Turn it into a TextBlock first."
            )
    return "\n".join(texts)


def _tool_calls(message: ChatMessage) -> Iterator[ToolCall]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    for block in blocks:
        yield ToolCall(block.tool_name, _arguments(block.tool_kwargs), block.tool_call_id or "")
    if blocks:
        return  # Integrations keep the same calls in both places.
    for call in message.additional_kwargs.get("tool_calls") or ():
        # OpenAI's form, as dicts or as that client's objects: {"id", "function": {"name", "arguments"}}.
        function = _get(call, "function") or call
        name, arguments = _get(function, "name") or "unknown", _arguments(_get(function, "arguments"))
        yield ToolCall(str(name), arguments, _get(call, "id") or "")


def _arguments(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if not value:
        return {}
    try:
        parsed = json.loads(value)
    except (TypeError, json.JSONDecodeError):
        parsed = None
    # A malformed call of an earlier answer: the model is shown what was there, the conversation goes on.
    return parsed if isinstance(parsed, dict) else {"arguments": str(value)}


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
