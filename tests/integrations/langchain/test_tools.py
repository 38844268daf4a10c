"""Tools and structured output through LangChain, on random weights: only the grammars can make them right."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from dgemma_core import Engine
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM


class Bridge(BaseModel):
    """A bridge."""

    name: str = Field(max_length=12)
    year: int = Field(ge=1000, le=2100)


class Tower(TypedDict):
    """A tower."""

    height: int


SCHEMA = {"title": "Boat", "type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@tool
def now() -> str:
    """Tells the time."""
    return "noon"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("any", {"add", "now"}),
        ("required", {"add", "now"}),
        (True, {"add", "now"}),
        ("add", {"add"}),
        ({"type": "function", "function": {"name": "now"}}, {"now"}),
    ],
)
def test_choices_force_calls(held_chat: ChatDiffusionGemma, choice: Any, names: set[str]) -> None:
    message = held_chat.bind_tools([add, now], tool_choice=choice).invoke("fox")
    assert isinstance(message, AIMessage)
    assert message.tool_calls
    assert {call["name"] for call in message.tool_calls} <= names
    assert message.response_metadata["finish_reason"] == "tool_calls"
    for call in message.tool_calls:
        if call["name"] == "add":
            assert {type(value) for value in call["args"].values()} == {int}


def test_other_choices(held_chat: ChatDiffusionGemma) -> None:
    assert not held_chat.bind_tools([add], tool_choice="none").invoke("fox").tool_calls
    assert isinstance(held_chat.bind_tools([add]).invoke("fox"), AIMessage)
    one = held_chat.bind_tools([add], tool_choice="any", parallel_tool_calls=False, strict=True).invoke("fox")
    assert len(one.tool_calls) == 1
    with pytest.raises(ValueError, match="'nowhere'"):
        held_chat.bind_tools([add], tool_choice="nowhere")
    with pytest.raises(ValueError, match="no tools"):
        held_chat.invoke("fox", tool_choice="any")


def test_every_form_of_a_tool(held_chat: ChatDiffusionGemma) -> None:
    def subtract(a: int, b: int) -> int:
        """Subtracts.

        Args:
            a: from this
            b: this
        """
        return a - b

    anthropic = {"name": "lift", "description": "Lifts.", "input_schema": {"type": "object", "properties": {}}}
    for form in (add, subtract, Bridge, SCHEMA, anthropic):
        assert held_chat.bind_tools([form], tool_choice="any").invoke("fox").tool_calls


async def test_streams_carry_the_same_calls(held_chat: ChatDiffusionGemma) -> None:
    bound = held_chat.bind_tools([add], tool_choice="add", parallel_tool_calls=False)
    whole = bound.invoke("fox")
    joined: AIMessageChunk | None = None
    for chunk in bound.stream("fox"):
        assert isinstance(chunk, AIMessageChunk)
        joined = chunk if joined is None else joined + chunk
    assert joined is not None
    assert [(c["name"], c["args"]) for c in joined.tool_calls] == [(c["name"], c["args"]) for c in whole.tool_calls]
    again = await bound.ainvoke("fox")
    assert [c["args"] for c in again.tool_calls] == [c["args"] for c in whole.tool_calls]
    assert again.tool_calls[0]["id"] != whole.tool_calls[0]["id"]


def test_results_go_back(held_chat: ChatDiffusionGemma) -> None:
    bound = held_chat.bind_tools([add], tool_choice="any")
    first = bound.invoke("fox")
    results = [ToolMessage("3", tool_call_id=call["id"]) for call in first.tool_calls]
    assert isinstance(
        held_chat.bind_tools([add], tool_choice="none").invoke([("human", "fox"), first, *results]), AIMessage
    )


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_always_fits(held_chat: ChatDiffusionGemma, method: Any) -> None:
    for seed in range(3):
        model = ChatDiffusionGemma(engine=held_chat.engine, max_tokens=100, max_denoising_steps=3, seed=seed)
        bridge = model.with_structured_output(Bridge, method=method).invoke("fox")
        assert isinstance(bridge, Bridge)
        tower = model.with_structured_output(Tower, method=method).invoke("fox")
        assert isinstance(tower["height"], int)
        assert model.with_structured_output(SCHEMA, method=method).invoke("fox")["color"] in ("red", "blue")


def test_raw_output(held_chat: ChatDiffusionGemma) -> None:
    out = held_chat.with_structured_output(Bridge, include_raw=True).invoke("fox")
    assert isinstance(out["raw"], AIMessage)
    assert isinstance(out["parsed"], Bridge)
    assert out["parsing_error"] is None


def test_json_mode_without_a_schema(held_chat: ChatDiffusionGemma) -> None:
    assert isinstance(held_chat.with_structured_output(method="json_mode").invoke("fox"), dict)
    with pytest.raises(ValueError, match="schema=None"):
        held_chat.with_structured_output()
    with pytest.raises(ValueError, match="'yaml'"):
        held_chat.with_structured_output(Bridge, method="yaml")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="colour"):
        held_chat.with_structured_output(Bridge, colour="red")


def test_tools_beside_a_response_format(held_chat: ChatDiffusionGemma) -> None:
    """What ``create_agent(response_format=...)`` binds: calls, or an answer that fits."""
    response_format = {"type": "json_schema", "json_schema": {"name": "Boat", "schema": SCHEMA}}
    message = held_chat.bind_tools([add], response_format=response_format).invoke("fox")
    assert message.tool_calls or message.text in ('{"color":"red"}', '{"color":"blue"}')
    with pytest.raises(ValueError, match="response_format"):
        held_chat.invoke("fox", response_format={"type": "xml"})


def test_the_string_model_says_where_tools_are(held_chat: ChatDiffusionGemma) -> None:
    llm = DiffusionGemmaLLM(engine=held_chat.engine)
    with pytest.raises(ValueError, match="use ChatDiffusionGemma"):
        llm.invoke("fox", tools=[{}])


async def test_thinking_is_asked_for_in_every_way(embedded_engine: Engine) -> None:
    question = "The Vexal bridge was built in 1931.\n\nWhen was it built?"
    chat = ChatDiffusionGemma(engine=embedded_engine, seed=0, max_tokens=4)
    thinking = ChatDiffusionGemma(engine=embedded_engine, seed=0, max_tokens=4, thinking=True)

    def asked(message: AIMessage) -> int:
        assert message.usage_metadata is not None
        return message.usage_metadata["input_tokens"]

    short = asked(chat.invoke(question))
    for message in (
        thinking.invoke(question),
        await thinking.ainvoke(question),
        chat.invoke(question, thinking=True),
        chat.bind(thinking=True).invoke(question),
    ):
        assert asked(message) > short
    assert asked(thinking.invoke(question, thinking=False)) == short
    assert thinking.get_num_tokens_from_messages([HumanMessage(question)]) > short
    assert thinking._get_llm_string() != chat._get_llm_string()
    with pytest.raises(ValueError, match="thinking='yes'"):
        chat.invoke(question, thinking="yes")


def test_stops_of_the_object_are_for_answers_in_words(held_chat: ChatDiffusionGemma) -> None:
    stopping = held_chat.model_copy(update={"stop": ["e"]})
    assert isinstance(stopping.with_structured_output(Bridge).invoke("Hello"), Bridge)
    with pytest.raises(ValueError, match="a stop string would cut"):
        stopping.with_structured_output(Bridge).invoke("Hello", stop=["e"])
