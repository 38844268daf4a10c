"""LangChain's keyword arguments for tool calls and structured answers -> ``ToolUse``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgemma_integrations.langchain.schemas import openai_tool
from dgemma_integrations.shared.tool_use import (
    ToolUse,
    answer_grammar,
    answer_schema,
    switched,
    tool_choice,
    with_strictness,
)

NAMES = frozenset(
    {"tools", "tool_choice", "parallel_tool_calls", "response_format", "strict", "thinking", "show_schema"}
)


def tool_use(
    kwargs: Mapping[str, Any], parallel: bool | None = None, thinking: bool = False, show_schema: bool = True
) -> ToolUse:
    """Read a call's keyword arguments of :data:`NAMES`.

    With ``strict``, a tool whose schema cannot be enforced is refused. Without it the schema is widened, and the log
    says so.

    Args:
        kwargs: of the call.
        parallel: ``parallel_tool_calls`` if the call does not give it.
        thinking: ``thinking`` if the call does not give it.
        show_schema: ``show_schema`` if the call does not give it.

    Raises:
        ValueError: naming the argument, its value and what is accepted.
    """
    tools = tuple(openai_tool(tool) for tool in kwargs.get("tools") or ())
    response_format = kwargs.get("response_format")
    shows = switched("show_schema", kwargs.get("show_schema"), show_schema)
    return ToolUse(
        with_strictness(tools, kwargs.get("strict")),
        tool_choice(kwargs.get("tool_choice"), tools),
        switched("parallel_tool_calls", kwargs.get("parallel_tool_calls"), parallel is not False),
        answer_grammar(response_format),
        switched("thinking", kwargs.get("thinking"), thinking),
        answer_schema(response_format) if shows else None,
    )
