"""Classes and tools that cannot be enforced as a whole: widened with a warning, or refused where ``strict`` asks."""

from __future__ import annotations

from typing import Literal

import pytest
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field

from dgemma_core import Engine
from dgemma_core.errors import GrammarError
from dgemma_integrations.llama_index import DiffusionGemma

ASK = PromptTemplate("Hello")


class Tags(BaseModel):
    """Tags of a page."""

    tags: set[str] = Field(max_length=2)
    kinds: dict[Literal["a", "b c"], int]


def tag(tags: set[str]) -> str:
    """Tags a page."""
    return " ".join(tags)


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@pytest.mark.parametrize("mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION])
def test_a_class_with_a_set_of_any_texts(
    embedded_engine: Engine, mode: PydanticProgramMode, caplog: pytest.LogCaptureFixture
) -> None:
    llm = DiffusionGemma(
        engine=embedded_engine, seed=0, max_tokens=120, max_denoising_steps=4, pydantic_program_mode=mode
    )
    made = llm.structured_predict(Tags, ASK)
    assert made.kinds.keys() <= {"a", "b c"}
    assert "#/properties/tags: 'uniqueItems'" in caplog.text
    with pytest.raises(GrammarError, match="uniqueItems"):
        llm.structured_predict(Tags, ASK, llm_kwargs={"strict": True})


@pytest.mark.parametrize("choice", [None, "tag", "add"])
def test_a_tool_with_a_set_of_any_texts(
    embedded_engine: Engine, choice: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    llm = DiffusionGemma(engine=embedded_engine, seed=0, max_tokens=80, max_denoising_steps=4)
    tools = [FunctionTool.from_defaults(tag), FunctionTool.from_defaults(add)]
    response = llm.chat_with_tools(tools, "Hello", tool_choice=choice, tool_required=True)
    calls = llm.get_tool_calls_from_response(response)
    assert {call.tool_name for call in calls} <= ({"tag", "add"} if choice is None else {choice})
    if choice != "add":
        assert "tool 'tag', #/properties/tags" in caplog.text
        with pytest.raises(GrammarError, match="uniqueItems"):
            llm.chat_with_tools(tools, "Hello", tool_choice=choice, tool_required=True, strict=True)
