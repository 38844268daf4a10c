"""Tools and structured output through LangChain, on random weights: only the grammars can make them right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
import typing_extensions
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolArg, StructuredTool, tool
from pydantic import BaseModel, Field, TypeAdapter

from dgemma_core import Engine
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
from tests.checkpoints import make_model, make_tokenizer


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


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatDiffusionGemma]:
    with Engine.from_model(make_model(seed=3, sharpness=0.3), make_tokenizer()) as engine:
        yield ChatDiffusionGemma(engine=engine, max_tokens=100, max_denoising_steps=3, seed=0)


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
def test_choices_force_calls(chat: ChatDiffusionGemma, choice: Any, names: set[str]) -> None:
    message = chat.bind_tools([add, now], tool_choice=choice).invoke("fox")
    assert isinstance(message, AIMessage)
    assert message.tool_calls
    assert {call["name"] for call in message.tool_calls} <= names
    assert message.response_metadata["finish_reason"] == "tool_calls"
    for call in message.tool_calls:
        if call["name"] == "add":
            assert {type(value) for value in call["args"].values()} == {int}


def test_other_choices(chat: ChatDiffusionGemma) -> None:
    assert not chat.bind_tools([add], tool_choice="none").invoke("fox").tool_calls
    assert isinstance(chat.bind_tools([add]).invoke("fox"), AIMessage)
    one = chat.bind_tools([add], tool_choice="any", parallel_tool_calls=False, strict=True).invoke("fox")
    assert len(one.tool_calls) == 1
    with pytest.raises(ValueError, match="'nowhere'"):
        chat.bind_tools([add], tool_choice="nowhere")
    with pytest.raises(ValueError, match="no tools"):
        chat.invoke("fox", tool_choice="any")


def test_every_form_of_a_tool(chat: ChatDiffusionGemma) -> None:
    def subtract(a: int, b: int) -> int:
        """Subtracts.

        Args:
            a: from this
            b: this
        """
        return a - b

    anthropic = {"name": "lift", "description": "Lifts.", "input_schema": {"type": "object", "properties": {}}}
    for form in (add, subtract, Bridge, SCHEMA, anthropic):
        assert chat.bind_tools([form], tool_choice="any").invoke("fox").tool_calls


async def test_streams_carry_the_same_calls(chat: ChatDiffusionGemma) -> None:
    bound = chat.bind_tools([add], tool_choice="add", parallel_tool_calls=False)
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


def test_results_go_back(chat: ChatDiffusionGemma) -> None:
    bound = chat.bind_tools([add], tool_choice="any")
    first = bound.invoke("fox")
    results = [ToolMessage("3", tool_call_id=call["id"]) for call in first.tool_calls]
    assert isinstance(chat.bind_tools([add], tool_choice="none").invoke([("human", "fox"), first, *results]), AIMessage)


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output_always_fits(chat: ChatDiffusionGemma, method: Any) -> None:
    for seed in range(3):
        model = ChatDiffusionGemma(engine=chat.engine, max_tokens=100, max_denoising_steps=3, seed=seed)
        bridge = model.with_structured_output(Bridge, method=method).invoke("fox")
        assert isinstance(bridge, Bridge)
        tower = model.with_structured_output(Tower, method=method).invoke("fox")
        assert isinstance(tower["height"], int)
        assert model.with_structured_output(SCHEMA, method=method).invoke("fox")["color"] in ("red", "blue")


def test_raw_output(chat: ChatDiffusionGemma) -> None:
    out = chat.with_structured_output(Bridge, include_raw=True).invoke("fox")
    assert isinstance(out["raw"], AIMessage)
    assert isinstance(out["parsed"], Bridge)
    assert out["parsing_error"] is None


def test_json_mode_without_a_schema(chat: ChatDiffusionGemma) -> None:
    assert isinstance(chat.with_structured_output(method="json_mode").invoke("fox"), dict)
    with pytest.raises(ValueError, match="schema=None"):
        chat.with_structured_output()
    with pytest.raises(ValueError, match="'yaml'"):
        chat.with_structured_output(Bridge, method="yaml")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="colour"):
        chat.with_structured_output(Bridge, colour="red")


def test_tools_beside_a_response_format(chat: ChatDiffusionGemma) -> None:
    """What ``create_agent(response_format=...)`` binds: calls, or an answer that fits."""
    response_format = {"type": "json_schema", "json_schema": {"name": "Boat", "schema": SCHEMA}}
    message = chat.bind_tools([add], response_format=response_format).invoke("fox")
    assert message.tool_calls or message.text in ('{"color":"red"}', '{"color":"blue"}')
    with pytest.raises(ValueError, match="response_format"):
        chat.invoke("fox", response_format={"type": "xml"})


def test_the_string_model_says_where_tools_are(chat: ChatDiffusionGemma) -> None:
    llm = DiffusionGemmaLLM(engine=chat.engine)
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


class Part(BaseModel):
    """A part made of parts."""

    title: str = Field(max_length=6)
    parts: list[Part] = Field(max_length=1)


@tool
def build(root: Part, count: int) -> str:
    """Builds a part some times."""
    return f"{count} of {root.title}"


def tear(root: Part) -> str:
    """Tears a part down."""
    return root.title


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_a_class_that_contains_itself(chat: ChatDiffusionGemma, method: Any) -> None:
    for seed in range(3):
        assert isinstance(chat.with_structured_output(Part, method=method).invoke("Hello", seed=seed), Part)


@pytest.mark.parametrize("given", [build, tear, Part])
def test_a_tool_whose_argument_contains_itself(chat: ChatDiffusionGemma, given: Any) -> None:
    (call,) = (
        chat.bind_tools([given], tool_choice="any", parallel_tool_calls=False)
        .invoke("Hello", max_tokens=200)
        .tool_calls
    )
    arguments = call["args"] if given is Part else call["args"]["root"]
    assert Part.model_validate(arguments)
    declared = chat.bind_tools([given]).kwargs["tools"][0]["function"]  # type: ignore[attr-defined]
    assert declared["description"]
    assert "title" not in declared["parameters"]
    assert "title" in declared["parameters"]["$defs"]["Part"]["properties"]


class Branch(typing_extensions.TypedDict):
    """A branch with branches."""

    name: Annotated[str, Field(max_length=6)]
    branches: Annotated[list[Branch], Field(max_length=1)]


def test_a_typed_dict_that_contains_itself(chat: ChatDiffusionGemma) -> None:
    for seed in range(3):
        for method in ("json_schema", "function_calling"):
            structured = chat.with_structured_output(Branch, method=method)  # type: ignore[arg-type]
            assert TypeAdapter(Branch).validate_python(structured.invoke("Hello", seed=seed))
    (declared,) = chat.bind_tools([Branch]).kwargs["tools"]  # type: ignore[attr-defined]
    assert (declared["function"]["name"], declared["function"]["description"]) == ("Branch", "A branch with branches.")


def test_a_reference_to_a_part_of_a_definition(chat: ChatDiffusionGemma) -> None:
    kids = {"type": "object", "properties": {"kids": {"$ref": "#/$defs/tree"}}, "additionalProperties": False}
    tree = {"type": "array", "items": kids, "maxItems": 1}
    schema = {"title": "tree", "$ref": "#/$defs/tree/items", "$defs": {"tree": tree}}
    assert set(chat.with_structured_output(schema).invoke("Hello")) <= {"kids"}


def test_a_tool_whose_schema_contains_itself(chat: ChatDiffusionGemma) -> None:
    described = StructuredTool(name="build", description="Builds.", args_schema=Part.model_json_schema(), func=str)
    bound = chat.bind_tools([described], tool_choice="any", parallel_tool_calls=False)
    (call,) = bound.invoke("Hello", max_tokens=200).tool_calls
    assert Part.model_validate(call["args"])


def test_a_function_with_an_injected_argument(chat: ChatDiffusionGemma) -> None:
    class Store:
        """Nothing that JSON has a schema for."""

    def look_up(name: str, store: Store) -> str:
        """Looks a name up."""
        return name

    # As in a module without postponed annotations; LangChain does not see through those.
    look_up.__annotations__ = {"name": str, "store": Annotated[Store, InjectedToolArg], "return": str}
    (declared,) = chat.bind_tools([look_up]).kwargs["tools"]  # type: ignore[attr-defined]
    assert list(declared["function"]["parameters"]["properties"]) == ["name"]


def test_a_schema_needs_no_title(chat: ChatDiffusionGemma) -> None:
    untitled = {name: value for name, value in SCHEMA.items() if name != "title"}
    assert chat.with_structured_output(untitled).invoke("Hello")["color"] in ("red", "blue")


def test_stops_of_the_object_are_for_answers_in_words(chat: ChatDiffusionGemma) -> None:
    stopping = chat.model_copy(update={"stop": ["e"]})
    assert isinstance(stopping.with_structured_output(Bridge).invoke("Hello"), Bridge)
    with pytest.raises(ValueError, match="a stop string would cut"):
        stopping.with_structured_output(Bridge).invoke("Hello", stop=["e"])
