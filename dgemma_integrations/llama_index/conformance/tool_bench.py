"""Two tools that note how they were called, and the four ways to call an LLM with them."""

from typing import Any, Literal, cast

import pytest
from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools import FunctionTool

from .base import ConformanceBase
from .calls import run

ASK = "Please switch on the lamp in the hall."
METHODS = ("chat_with_tools", "achat_with_tools", "stream_chat_with_tools", "astream_chat_with_tools")
each_method = pytest.mark.parametrize("method", METHODS)


class Bench:
    """Two tools that note how they were called."""

    def __init__(self, **options: Any) -> None:
        self.added: list[tuple[Any, Any]] = []
        self.switched: list[tuple[Any, Any]] = []
        self.tools = [
            FunctionTool.from_defaults(fn=self.add, **options),
            FunctionTool.from_defaults(fn=self.set_lamp, **options),
        ]

    def add(self, a: int, b: int) -> int:
        """Adds two whole numbers."""
        self.added.append((a, b))
        return a + b

    def set_lamp(self, room: Literal["hall", "kitchen"], on: bool) -> str:
        """Switches the lamp of a room on or off."""
        self.switched.append((room, on))
        return f"The lamp in the {room} is {'on' if on else 'off'}."

    @property
    def names(self) -> set[str]:
        """The tools' names."""
        return {str(tool.metadata.name) for tool in self.tools}

    @property
    def calls(self) -> int:
        """How often a tool was called."""
        return len(self.added) + len(self.switched)

    def check(self, selection: ToolSelection) -> None:
        """Raise an error unless the call fits the tool that it names."""
        (tool,) = (tool for tool in self.tools if tool.metadata.name == selection.tool_name)
        schema = tool.metadata.fn_schema
        assert schema is not None
        schema.model_validate(selection.tool_kwargs)


class ToolBase(ConformanceBase):
    """Helpers of the tests of tools."""

    def with_tools(self, llm: LLM, method: str, tools: list[FunctionTool], **kwargs: Any) -> list[ChatResponse]:
        """All responses of one of the four methods."""
        kwargs = {"user_msg": ASK, **kwargs}

        async def work() -> list[ChatResponse]:
            result = getattr(llm, method)(tools, **kwargs)
            if method.startswith("a"):
                result = await result
            if method.startswith("astream"):
                return [chunk async for chunk in result]
            return list(result) if method.startswith("stream") else [result]

        if method.startswith("a"):
            return run(work())
        result = getattr(llm, method)(tools, **kwargs)
        return list(result) if "stream" in method else [result]

    def selections(self, llm: LLM, response: ChatResponse) -> list[ToolSelection]:
        """The calls in a response."""
        return cast(FunctionCallingLLM, llm).get_tool_calls_from_response(response, error_on_no_tool_call=False)
