"""Schemas that cannot be enforced as a whole: widened with a warning, or refused where ``strict`` is asked for."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from dgemma_core.errors import GrammarError
from dgemma_integrations.langchain import ChatDiffusionGemma


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Paint(BaseModel):
    """Paints."""

    colors: set[Color] = Field(min_length=2)
    litres: dict[Color, int]
    flags: dict[Literal["dry", "in stock"], bool]


class Tags(BaseModel):
    """Tags of a page."""

    tags: set[str] = Field(max_length=2)


ODD_KEYS = {
    "title": "odd",
    "description": "Odd keys.",
    "type": "object",
    "properties": {"a[b]": {"type": "integer"}, "{c}: d,": {"type": "boolean"}},
    "required": ["a[b]", "{c}: d,"],
    "additionalProperties": False,
}
FORBIDDING = {"title": "no", "description": "", "type": "object", "not": {"required": ["a"]}, "properties": {"a": {}}}


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_sets_and_maps_of_listed_values_are_enforced(held_chat: ChatDiffusionGemma, method: Any) -> None:
    paint = held_chat.with_structured_output(Paint, method=method, strict=True).invoke("Hello", max_tokens=200)
    assert paint.colors == set(Color)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_set_of_any_texts_is_widened_or_refused(
    held_chat: ChatDiffusionGemma, method: Any, caplog: pytest.LogCaptureFixture
) -> None:
    structured = held_chat.with_structured_output(Tags, method=method)
    assert isinstance(structured.invoke("Hello", max_tokens=200), Tags)
    assert "#/properties/tags: 'uniqueItems'" in caplog.text
    with pytest.raises(GrammarError, match="uniqueItems"):
        held_chat.with_structured_output(Tags, method=method, strict=True).invoke("Hello")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_schema_that_no_parser_checks_is_refused(held_chat: ChatDiffusionGemma, method: Any) -> None:
    with pytest.raises(GrammarError, match="not"):
        held_chat.with_structured_output(FORBIDDING, method=method).invoke("Hello")


@pytest.mark.parametrize("choice", ["auto", "any", "Tags", "odd", "add"])
def test_one_tool_that_cannot_be_enforced_does_not_stop_the_others(
    held_chat: ChatDiffusionGemma, choice: str, caplog: pytest.LogCaptureFixture
) -> None:
    tools = [add, Tags, ODD_KEYS, FORBIDDING]
    message = held_chat.bind_tools(tools, tool_choice=choice).invoke("Hello", max_tokens=200)
    for call in message.tool_calls:
        if call["name"] == "odd":
            assert (type(call["args"]["a[b]"]), type(call["args"]["{c}: d,"])) == (int, bool)
    if choice in ("Tags", "odd", "add"):
        assert {call["name"] for call in message.tool_calls} == {choice}
    if choice not in ("odd", "add"):
        assert "tool 'Tags', #/properties/tags" in caplog.text
        with pytest.raises(GrammarError, match="cannot be enforced"):
            held_chat.bind_tools(tools, tool_choice=choice, strict=True).invoke("Hello")
