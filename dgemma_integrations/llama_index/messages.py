"""LlamaIndex chat messages -> the engine's messages, one to one and in order.

Texts and images keep their order. Thoughts and citations of earlier answers and cache hints are dropped, because
they do not belong in a prompt. Any other block is refused by name, because an answer that ignores half of the question
is worse than an error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitationBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from dgemma_core.api.images import Image
from dgemma_core.api.messages import Message, Role, ToolCall
from dgemma_core.errors import DGemmaError
from dgemma_integrations.shared.images import Fetch, fetcher

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
# Thoughts of earlier answers, and hints to other engines' caches.
_NEVER_PROMPTED = (ThinkingBlock, CachePoint)


def to_engine_messages(messages: Sequence[ChatMessage], *, allow_image_urls: bool = False) -> list[Message]:
    """Translate a conversation.

    Args:
        messages: any roles in any order; consecutive user messages and a system message at the end are fine.
        allow_image_urls: download images that are named by a web address. This blocks.

    Raises:
        NotImplementedError: a content block that is neither text nor an image. It is not a ``ValueError``, because
            response synthesizers swallow those and answer "Empty Response".
        DGemmaError: an image cannot be read, may not be downloaded, or could not be downloaded.
        ImportError: there are images, and Pillow is not installed.

    Example:
        >>> to_engine_messages([ChatMessage(role="user", content="Hello")])
        [Message(role='user', content='Hello', tool_calls=(), tool_call_id=None, name=None)]
    """
    fetch = fetcher(allow_image_urls)
    return [_translate(message, fetch) for message in messages]


async def ato_engine_messages(messages: Sequence[ChatMessage], *, allow_image_urls: bool = False) -> list[Message]:
    """:func:`to_engine_messages` without blocking the event loop while images are downloaded and decoded."""
    if any(isinstance(block, ImageBlock) for message in messages for block in message.blocks):
        return await asyncio.to_thread(to_engine_messages, messages, allow_image_urls=allow_image_urls)
    return to_engine_messages(messages, allow_image_urls=allow_image_urls)


def _translate(message: ChatMessage, fetch: Fetch | None) -> Message:
    role = _ROLES[message.role]
    content = _content(message, role, fetch)
    if role == "assistant":
        return Message(role, content, tool_calls=tuple(_tool_calls(message)))
    if role == "tool":
        extra = message.additional_kwargs
        return Message(role, content, tool_call_id=extra.get("tool_call_id"), name=extra.get("name"))
    return Message(role, content)


def _content(message: ChatMessage, role: Role, fetch: Fetch | None) -> list[str | Image]:
    """Texts and images of a message. Neighbouring texts are joined as in ``ChatMessage.content``."""
    left_out = (*_NEVER_PROMPTED, ToolCallBlock, CitationBlock) if role == "assistant" else _NEVER_PROMPTED
    parts: list[str | Image] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            parts.append(f"\n{block.text}" if parts and isinstance(parts[-1], str) else block.text)
        elif isinstance(block, ImageBlock):
            parts.append(_image(block, message.role, fetch))
        elif not isinstance(block, left_out):
            raise NotImplementedError(
                f"{type(block).__name__} (block type {getattr(block, 'block_type', '?')!r}) in a {message.role.value} "
                "message is not supported: DiffusionGemma takes text and images only. Turn it into a TextBlock first."
            )
    return parts


def _image(block: ImageBlock, role: MessageRole, fetch: Fetch | None) -> Image:
    try:
        if block.image is not None:
            return Image.from_bytes(block.resolve_image().read())
        if block.path is not None:
            return Image.from_file(block.path)
        if block.url is not None:
            return Image.from_url(str(block.url), fetch=fetch)
    except ValueError as error:
        # Not a ValueError, see to_engine_messages().
        raise DGemmaError(f"ImageBlock in a {role.value} message: {error}") from error
    raise DGemmaError(f"ImageBlock in a {role.value} message is empty: give it image=, path= or url=")


def _tool_calls(message: ChatMessage) -> Iterator[ToolCall]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    for block in blocks:
        yield ToolCall(block.tool_name, _arguments(block.tool_kwargs), block.tool_call_id or "")
    if blocks:
        return  # Integrations write the same calls into both places.
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
    # For a malformed call of an earlier answer, the model sees the raw text, and the conversation goes on.
    return parsed if isinstance(parsed, dict) else {"arguments": str(value)}


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
