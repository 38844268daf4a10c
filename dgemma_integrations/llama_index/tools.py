"""LlamaIndex's keyword arguments for tool calls and structured answers, and the calls in its responses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection

from dgemma_core.api.messages import ToolCall
from dgemma_integrations.shared.shown_schema import with_root
from dgemma_integrations.shared.tool_use import (
    ToolUse,
    answer_grammar,
    answer_schema,
    switched,
    tool_choice,
    with_strictness,
)

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

# Two names of the same switch: LlamaIndex's own and that of chat APIs.
_PARALLEL = ("allow_parallel_tool_calls", "parallel_tool_calls")
TOOL_NAMES = frozenset({"tools", "tool_choice", "tool_required", "tool_names", "response_format", *_PARALLEL})
NAMES = TOOL_NAMES | {"strict", "thinking", "show_schema"}


def chat_arguments(
    tools: Sequence[BaseTool],
    user_msg: str | ChatMessage | None,
    chat_history: Sequence[ChatMessage] | None,
    parallel: bool,
    required: bool,
    choice: Any,
) -> dict[str, Any]:
    """Keyword arguments of ``chat`` for a conversation with tools. They are plain values, because events hold them.

    Some tools have names that cannot be declared, like ``Model[int]``. For them ``tool_names`` has the declared name ->
    the tool's own name.
    """
    messages = list(chat_history or ())  # A copy, because the caller's history must not change.
    if isinstance(user_msg, str):
        user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
    if user_msg is not None:
        messages.append(user_msg)
    if not tools:
        # Without tools a call cannot be forced; reading these says so.
        asked = {"tool_choice": choice, "tool_required": required or None}
        return {"messages": messages} | {name: value for name, value in asked.items() if value is not None}
    declared = [_declared(tool) for tool in tools]
    names = {d["function"]["name"]: tool.metadata.get_name() for d, tool in zip(declared, tools, strict=True)}
    renamed = {name: own for name, own in names.items() if name != own}
    if isinstance(choice, str):
        choice = next((name for name, own in renamed.items() if own == choice), choice)
    arguments = {
        "messages": messages,
        "tools": declared,
        "tool_choice": choice,
        "tool_required": required,
        "allow_parallel_tool_calls": parallel,
    }
    return {**arguments, "tool_names": renamed} if renamed else arguments


def _declared(tool: BaseTool) -> dict[str, Any]:
    """The tool as OpenAI function dict."""
    # OpenAI limits the length of a description; this engine does not.
    declared = tool.metadata.to_openai_tool(skip_length_check=True)
    arguments = tool.metadata.fn_schema
    schema = {} if arguments is None else arguments.model_json_schema()
    if "$ref" in schema:  # A class that contains itself. LlamaIndex would drop its properties.
        declared["function"]["parameters"] = with_root(schema)
    return declared


def tool_use(arguments: Mapping[str, Any], thinking: bool = False, show_schema: bool = True) -> ToolUse:
    """Read a call's keyword arguments of :data:`NAMES`.

    Args:
        arguments: of the call.
        thinking: ``thinking`` if the call does not give it.
        show_schema: ``show_schema`` if the call does not give it.

    Raises:
        ValueError: naming the argument, its value and what is accepted.
    """
    tools = tuple(arguments.get("tools") or ())
    for tool in tools:
        if not isinstance(tool, Mapping) or not isinstance(tool.get("function"), Mapping):
            raise ValueError(
                f"tools holds {tool!r}: must be an OpenAI function dict, such as tool.metadata.to_openai_tool(); "
                "BaseTool objects go to chat_with_tools"
            )
    choice = tool_choice(arguments.get("tool_choice"), tools)
    if switched("tool_required", arguments.get("tool_required"), False) and choice in (None, "auto"):
        if not tools:
            raise ValueError("tool_required=True: there are no tools to call")
        choice = "any"
    response_format = arguments.get("response_format")
    return ToolUse(
        with_strictness(tools, arguments.get("strict")),
        choice,
        all(switched(name, arguments.get(name), True) for name in _PARALLEL),
        answer_grammar(response_format),
        switched("thinking", arguments.get("thinking"), thinking),
        answer_schema(response_format) if switched("show_schema", arguments.get("show_schema"), show_schema) else None,
    )


def call_blocks(calls: Sequence[ToolCall], names: Mapping[str, str]) -> list[ToolCallBlock]:
    """Tool calls as content blocks, under the tools' own names."""
    return [
        ToolCallBlock(tool_call_id=call.id, tool_name=names.get(call.name, call.name), tool_kwargs=dict(call.arguments))
        for call in calls
    ]


def openai_calls(blocks: Sequence[ToolCallBlock]) -> list[dict[str, Any]]:
    """The same calls as dicts. LlamaIndex's programs look for these as well as for the blocks."""
    return [
        {
            "id": block.tool_call_id,
            "type": "function",
            "function": {"name": block.tool_name, "arguments": json.dumps(block.tool_kwargs, ensure_ascii=False)},
        }
        for block in blocks
    ]


def selections(response: ChatResponse) -> list[ToolSelection]:
    """The tool calls of a response, or of a chunk of a stream."""
    blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    return [
        ToolSelection(tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=dict(block.tool_kwargs))
        for block in blocks
        if isinstance(block.tool_kwargs, Mapping)
    ]
