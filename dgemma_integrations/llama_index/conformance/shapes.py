"""The shapes of conversation that core sends, each with the component that sends it."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, TextBlock, ThinkingBlock, ToolCallBlock


def _call(name: str, number: int, **arguments: Any) -> ToolCallBlock:
    return ToolCallBlock(tool_call_id=f"call_{number}", tool_name=name, tool_kwargs=arguments)


def _message(role: str, content: str | list[Any], **extra: Any) -> ChatMessage:
    if isinstance(content, str):
        return ChatMessage(role=role, content=content, additional_kwargs=extra)
    return ChatMessage(role=role, blocks=content, additional_kwargs=extra)


_CALLS = [
    _message("system", "Use tools."),
    _message("user", "Add 2 and 3, and 4 and 5."),
    _message("assistant", [_call("add", 1, a=2, b=3), _call("add", 2, a=4, b=5)]),
    _message("tool", "5", tool_call_id="call_1"),
    _message("tool", "9", tool_call_id="call_2"),
]

SHAPES: dict[str, tuple[str, list[ChatMessage]]] = {
    "one_user": ("everything", [_message("user", "Name a river.")]),
    "system_first": ("chat engines", [_message("system", "Be brief."), _message("user", "Name a river.")]),
    "dialogue": (
        "chat engines with memory",
        [_message("user", "Name a river."), _message("assistant", "Toln."), _message("user", "Name another.")],
    ),
    "consecutive_users": (
        "DocumentContextExtractor, ReAct retries",
        [_message("user", "The Toln is a river."), _message("user", "Name a river.")],
    ),
    "system_last": (
        'agents with early_stopping_method="generate"',
        [_message("system", "Be brief."), _message("user", "Name a river."), _message("system", "Answer now.")],
    ),
    "only_system": ("prompts that are all instruction", [_message("system", "Name a river.")]),
    "assistant_last": (
        "ReActAgent after a tool that returns directly",
        [_message("user", "Name a river."), _message("assistant", "The Toln")],
    ),
    "two_assistants": (
        "memory after a retry",
        [
            _message("user", "Hello."),
            _message("assistant", "Hi."),
            _message("assistant", "Ask."),
            _message("user", "?"),
        ],
    ),
    "assistant_without_text": ("FunctionAgent's second turn: content is None", _CALLS),
    "tool_call_as_json_text": (
        "tool calls of integrations that keep the arguments as text",
        [
            _message("user", "Add 2 and 3."),
            _message(
                "assistant",
                [ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs='{"a": 2, "b": 3}')],
            ),
            _message("tool", "5", tool_call_id="call_1"),
        ],
    ),
    "empty_tool_result": (
        "FunctionAgent with a tool that returns nothing",
        [
            _message("user", "Ring the bell."),
            _message("assistant", [TextBlock(text="I ring it."), _call("ring", 1)]),
            _message("tool", "", tool_call_id="call_1"),
        ],
    ),
    "two_text_blocks": (
        "multimodal synthesizers",
        [_message("user", [TextBlock(text="The Toln is a river."), TextBlock(text="Name it.")])],
    ),
    "thoughts_in_history": (
        "agents with a model that thinks",
        [
            _message("user", "Hello."),
            _message("assistant", [ThinkingBlock(content="A greeting."), TextBlock(text="Hi.")]),
            _message("user", "Name a river."),
        ],
    ),
}


def png(width: int = 8, height: int = 8) -> bytes:
    """A small red picture."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\x00" + b"\xff\x00\x00" * width) * height
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
