"""Schemas of tools and answers, on random weights: only the grammars can make them right."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import typing_extensions
from langchain_core.tools import InjectedToolArg, StructuredTool, tool
from pydantic import BaseModel, Field, TypeAdapter

from dgemma_integrations.langchain import ChatDiffusionGemma

SCHEMA = {"title": "Boat", "type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}


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
def test_a_class_that_contains_itself(held_chat: ChatDiffusionGemma, method: Any) -> None:
    for seed in range(3):
        assert isinstance(held_chat.with_structured_output(Part, method=method).invoke("Hello", seed=seed), Part)


@pytest.mark.parametrize("given", [build, tear, Part])
def test_a_tool_whose_argument_contains_itself(held_chat: ChatDiffusionGemma, given: Any) -> None:
    (call,) = (
        held_chat.bind_tools([given], tool_choice="any", parallel_tool_calls=False)
        .invoke("Hello", max_tokens=200)
        .tool_calls
    )
    arguments = call["args"] if given is Part else call["args"]["root"]
    assert Part.model_validate(arguments)
    declared = held_chat.bind_tools([given]).kwargs["tools"][0]["function"]  # type: ignore[attr-defined]
    assert declared["description"]
    assert "title" not in declared["parameters"]
    assert "title" in declared["parameters"]["$defs"]["Part"]["properties"]


class Branch(typing_extensions.TypedDict):
    """A branch with branches."""

    name: Annotated[str, Field(max_length=6)]
    branches: Annotated[list[Branch], Field(max_length=1)]


def test_a_typed_dict_that_contains_itself(held_chat: ChatDiffusionGemma) -> None:
    for seed in range(3):
        for method in ("json_schema", "function_calling"):
            structured = held_chat.with_structured_output(Branch, method=method)  # type: ignore[arg-type]
            assert TypeAdapter(Branch).validate_python(structured.invoke("Hello", seed=seed))
    (declared,) = held_chat.bind_tools([Branch]).kwargs["tools"]  # type: ignore[attr-defined]
    assert (declared["function"]["name"], declared["function"]["description"]) == ("Branch", "A branch with branches.")


def test_a_reference_to_a_part_of_a_definition(held_chat: ChatDiffusionGemma) -> None:
    kids = {"type": "object", "properties": {"kids": {"$ref": "#/$defs/tree"}}, "additionalProperties": False}
    tree = {"type": "array", "items": kids, "maxItems": 1}
    schema = {"title": "tree", "$ref": "#/$defs/tree/items", "$defs": {"tree": tree}}
    assert set(held_chat.with_structured_output(schema).invoke("Hello")) <= {"kids"}


def test_a_tool_whose_schema_contains_itself(held_chat: ChatDiffusionGemma) -> None:
    described = StructuredTool(name="build", description="Builds.", args_schema=Part.model_json_schema(), func=str)
    bound = held_chat.bind_tools([described], tool_choice="any", parallel_tool_calls=False)
    (call,) = bound.invoke("Hello", max_tokens=200).tool_calls
    assert Part.model_validate(call["args"])


def test_a_function_with_an_injected_argument(held_chat: ChatDiffusionGemma) -> None:
    class Store:
        """Nothing that JSON has a schema for."""

    def look_up(name: str, store: Store) -> str:
        """Looks a name up."""
        return name

    # As in a module without postponed annotations; LangChain does not see through those.
    look_up.__annotations__ = {"name": str, "store": Annotated[Store, InjectedToolArg], "return": str}
    (declared,) = held_chat.bind_tools([look_up]).kwargs["tools"]  # type: ignore[attr-defined]
    assert list(declared["function"]["parameters"]["properties"]) == ["name"]


def test_a_schema_needs_no_title(held_chat: ChatDiffusionGemma) -> None:
    untitled = {name: value for name, value in SCHEMA.items() if name != "title"}
    assert held_chat.with_structured_output(untitled).invoke("Hello")["color"] in ("red", "blue")
