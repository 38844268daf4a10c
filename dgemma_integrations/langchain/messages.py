"""LangChain messages to the engine's messages, one to one and in order.

What has no place in a text prompt is either dropped because it never belongs there (reasoning of earlier answers,
provider bookkeeping in assistant messages) or refused with a ``ValueError`` that names it (images, audio, files).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from dgemma_core.messages import Message, Role, ToolCall

_CHAT_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
_MEDIA = frozenset(
    ("image", "image_url", "input_image", "audio", "input_audio", "video", "file", "input_file", "media", "document")
)
# Earlier answers' thoughts and provider bookkeeping: never sent back to a model.
_ASSISTANT_ONLY = frozenset(
    (
        "reasoning",
        "reasoning_content",
        "thinking",
        "redacted_thinking",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "non_standard",
    )
)
_CALLS = frozenset(
    ("tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "input_json_delta")
)


def to_engine_messages(messages: Sequence[BaseMessage]) -> list[Message]:
    """Translates a conversation.

    Raises:
        ValueError: on a message type, a role or a content block the model cannot be given.
    """
    return [translated for message in messages for translated in _translate(message)]


def _translate(message: BaseMessage) -> Iterator[Message]:
    if isinstance(message, SystemMessage):
        yield Message("system", _text(message))
    elif isinstance(message, HumanMessage):
        yield from _human(message)
    elif isinstance(message, AIMessage):
        yield Message("assistant", _text(message, assistant=True), tool_calls=tuple(_tool_calls(message)))
    elif isinstance(message, ToolMessage):
        failed = message.status == "error"
        yield Message("tool", _result(_text(message), failed), tool_call_id=message.tool_call_id, name=message.name)
    elif isinstance(message, FunctionMessage):
        yield Message("tool", _text(message), name=message.name)
    elif isinstance(message, ChatMessage):
        role = _CHAT_ROLES.get(message.role.lower())
        if role is None:
            raise ValueError(f"ChatMessage(role={message.role!r}): must be one of {', '.join(_CHAT_ROLES)}")
        yield Message(role, _text(message, assistant=role == "assistant"))
    else:
        raise ValueError(f"{type(message).__name__} is not a message a model can be given")


def _human(message: HumanMessage) -> Iterator[Message]:
    """One user message; tool results inside it (Anthropic's form) become tool messages before it."""
    if isinstance(message.content, str):
        yield Message("user", message.content)
        return
    rest: list[str | dict[str, Any]] = []
    for block in message.content:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            content = block.get("content") or []
            parts = [content] if isinstance(content, str) else content
            text = "".join(_block_text(part, "tool_result") for part in parts)
            yield Message("tool", _result(text, bool(block.get("is_error"))), tool_call_id=block.get("tool_use_id"))
        else:
            rest.append(block)
    if rest or not message.content:
        yield Message("user", "".join(_block_text(block, "HumanMessage") for block in rest))


def _text(message: BaseMessage, *, assistant: bool = False) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(_block_text(block, type(message).__name__, assistant=assistant) for block in message.content)


def _block_text(block: str | Mapping[str, Any], where: str, *, assistant: bool = False) -> str:
    """The text of one content block; blocks are joined without a separator, as ``BaseMessage.text`` does."""
    if isinstance(block, str):
        return block
    kind = block.get("type")
    # A dict with nothing but text, and v1's "text-plain" documents, count as text.
    if kind in (None, "text", "input_text", "output_text", "text-plain") and isinstance(block.get("text"), str):
        return str(block["text"])
    if kind == "refusal":
        return str(block.get("refusal", ""))
    if kind == "json":
        return json.dumps(block.get("json"), ensure_ascii=False)
    if assistant and (kind in _ASSISTANT_ONLY or kind in _CALLS):
        return ""
    if kind in _MEDIA:
        raise ValueError(f"{where} has a content block of type {kind!r}: this model object takes text only for now")
    raise ValueError(f"{where} has a content block of type {kind!r}, which is not text")


def _result(text: str, failed: bool) -> str:
    """A tool's result; the model only sees text, so a failure has to say that it is one."""
    return f"Error: {text}" if failed and not text.lower().startswith("error") else text


def _tool_calls(message: AIMessage) -> Iterator[ToolCall]:
    seen = set()
    for call in message.tool_calls:
        seen.add(call["id"])
        yield ToolCall(call["name"], call["args"], call["id"] or "")
    for invalid in message.invalid_tool_calls:
        # Its arguments were not valid JSON; the result that answers it still needs the call before it.
        seen.add(invalid["id"])
        yield ToolCall(invalid["name"] or "unknown", {"arguments": invalid["args"] or ""}, invalid["id"] or "")
    if isinstance(message.content, list):
        # Calls that another integration left in the content only.
        for block in message.content:
            if not isinstance(block, dict) or block.get("type") not in ("tool_use", "tool_call"):
                continue
            if block.get("id") not in seen:
                arguments = block.get("input", block.get("args"))
                arguments = arguments if isinstance(arguments, dict) else {}
                yield ToolCall(block.get("name") or "unknown", arguments, block.get("id") or "")
