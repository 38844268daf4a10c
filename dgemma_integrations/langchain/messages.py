"""LangChain messages -> the engine's messages, one to one and in order.

Texts and images keep their order. Two kinds of content never belong in a prompt and are dropped: reasoning of earlier
answers, and provider bookkeeping in assistant messages. All other content (audio, files) is refused with a
``ValueError`` that names it.
"""

from __future__ import annotations

import asyncio
import json
import re
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

from dgemma_core.api.images import Image
from dgemma_core.api.messages import Message, Role, ToolCall
from dgemma_integrations.langchain.images import IMAGE_BLOCKS, to_image
from dgemma_integrations.shared.images import Fetch, fetcher

_CHAT_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
_MEDIA = frozenset(("audio", "input_audio", "video", "file", "input_file", "media", "document"))
# Earlier answers' thoughts and provider bookkeeping are never sent back to a model.
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
        "executable_code",
        "code_execution_result",
        "compaction",
    )
)
# Server-side tools of other providers: web_search_call, server_tool_use, web_search_tool_result, mcp_list_tools, ...
_SERVER_TOOLS = re.compile(r".+_(call|call_output|tool_use|tool_result|list_tools|approval_request|approval_response)")
_CALLS = frozenset(
    ("tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "input_json_delta")
)


def to_engine_messages(messages: Sequence[BaseMessage], *, allow_image_urls: bool = False) -> list[Message]:
    """Translate a conversation.

    Args:
        messages: the conversation.
        allow_image_urls: download images that are named by a web address. This blocks.

    Raises:
        ValueError: a message type, a role or a content block that the model does not take, an image that cannot be
            read, or a web address that may not be downloaded.
        DGemmaError: an image could not be downloaded.
        ImportError: there are images, and Pillow is not installed.
    """
    translator = _Translator(fetcher(allow_image_urls))
    return [translated for message in messages for translated in translator.translate(message)]


async def ato_engine_messages(messages: Sequence[BaseMessage], *, allow_image_urls: bool = False) -> list[Message]:
    """:func:`to_engine_messages` without blocking the event loop while images are downloaded and decoded."""
    if any(_may_hold_images(message) for message in messages):
        return await asyncio.to_thread(to_engine_messages, messages, allow_image_urls=allow_image_urls)
    return to_engine_messages(messages, allow_image_urls=allow_image_urls)


def _may_hold_images(message: BaseMessage) -> bool:
    blocks = message.content if isinstance(message.content, list) else ()
    return any(isinstance(block, dict) and block.get("type") in (*IMAGE_BLOCKS, "tool_result") for block in blocks)


_Parts = list[str | Image]


class _Translator:
    """Translates message by message.

    Args:
        fetch: downloads images; None if that is not allowed.
    """

    def __init__(self, fetch: Fetch | None) -> None:
        self._fetch = fetch

    def translate(self, message: BaseMessage) -> Iterator[Message]:
        if isinstance(message, SystemMessage):
            yield Message("system", self._content(message))
        elif isinstance(message, HumanMessage):
            yield from self._human(message)
        elif isinstance(message, AIMessage):
            content = self._content(message, assistant=True)
            yield Message("assistant", content, tool_calls=tuple(_tool_calls(message)))
        elif isinstance(message, ToolMessage):
            content = _result(self._content(message), message.status == "error")
            yield Message("tool", content, tool_call_id=message.tool_call_id, name=message.name)
        elif isinstance(message, FunctionMessage):
            yield Message("tool", self._content(message), name=message.name)
        elif isinstance(message, ChatMessage):
            role = _CHAT_ROLES.get(message.role.lower())
            if role is None:
                raise ValueError(f"ChatMessage(role={message.role!r}): must be one of {', '.join(_CHAT_ROLES)}")
            yield Message(role, self._content(message, assistant=role == "assistant"))
        else:
            raise ValueError(
                f"{type(message).__name__} is no message for a model: give a system, human, AI or tool message"
            )

    def _human(self, message: HumanMessage) -> Iterator[Message]:
        """One user message. Tool results inside it (Anthropic's form) become tool messages before it."""
        if isinstance(message.content, str):
            yield Message("user", message.content)
            return
        rest: list[str | dict[str, Any]] = []
        for block in message.content:
            if isinstance(block, dict) and block.get("type") == "tool_result":
                content = block.get("content") or []
                parts = [self._part(p, "tool_result") for p in ([content] if isinstance(content, str) else content)]
                result = _result(parts, bool(block.get("is_error")))
                yield Message("tool", result, tool_call_id=block.get("tool_use_id"))
            else:
                rest.append(block)
        if rest or not message.content:
            yield Message("user", [self._part(block, "HumanMessage") for block in rest])

    def _content(self, message: BaseMessage, *, assistant: bool = False) -> _Parts:
        if isinstance(message.content, str):
            return [message.content]
        return [self._part(block, type(message).__name__, assistant=assistant) for block in message.content]

    def _part(self, block: str | Mapping[str, Any], where: str, *, assistant: bool = False) -> str | Image:
        """One content block. ``Message`` joins texts without a separator, as ``BaseMessage.text`` does."""
        if isinstance(block, str):
            return block
        kind = block.get("type")
        # A dict that has only text, and v1's "text-plain" documents, count as text.
        if kind in (None, "text", "input_text", "output_text", "text-plain") and isinstance(block.get("text"), str):
            return str(block["text"])
        if kind == "refusal":
            return str(block.get("refusal", ""))
        if kind == "json":
            return json.dumps(block.get("json"), ensure_ascii=False)
        if assistant and (kind in _ASSISTANT_ONLY or kind in _CALLS or _SERVER_TOOLS.fullmatch(str(kind))):
            return ""
        if kind in IMAGE_BLOCKS:
            return to_image(block, where, self._fetch)
        if kind in _MEDIA:
            raise ValueError(f"{where} has a content block of type {kind!r}: this model takes text and images only")
        raise ValueError(f"{where} has a content block of type {kind!r}, which is neither text nor an image")


def _result(parts: _Parts, failed: bool) -> _Parts:
    """A tool's result. The model sees nothing else of the message, so the text must say that a call has failed."""
    text = "".join(part for part in parts if isinstance(part, str))
    return ["Error: ", *parts] if failed and not text.lower().startswith("error") else parts


def _tool_calls(message: AIMessage) -> Iterator[ToolCall]:
    seen = set()
    for call in message.tool_calls:
        seen.add(call["id"])
        yield ToolCall(call["name"], call["args"], call["id"] or "")
    for invalid in message.invalid_tool_calls:
        # Its arguments were not valid JSON. It stays, because the tool's result needs a call before it.
        seen.add(invalid["id"])
        yield ToolCall(invalid["name"] or "unknown", {"arguments": invalid["args"] or ""}, invalid["id"] or "")
    if isinstance(message.content, list):
        # Calls that another integration wrote into the content only.
        for block in message.content:
            if not isinstance(block, dict) or block.get("type") not in ("tool_use", "tool_call"):
                continue
            if block.get("id") not in seen:
                arguments = block.get("input", block.get("args"))
                arguments = arguments if isinstance(arguments, dict) else {}
                yield ToolCall(block.get("name") or "unknown", arguments, block.get("id") or "")
