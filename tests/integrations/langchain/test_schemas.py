"""Schemas of tools and answers, on random weights: only the grammars can make them right."""

from __future__ import annotations

import sys
import typing
from typing import Annotated, Any, Generic, NotRequired, Required, TypedDict, TypeVar

import pytest
import typing_extensions
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolArg, StructuredTool, tool
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

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


class Wheel(TypedDict, total=False):
    size: Required[Annotated[int, ..., "in inches"]]
    color: str


class Cart(TypedDict):
    """A cart.

    Args:
        load: in kilograms.
    """

    name: str
    load: NotRequired[int]
    wheels: Annotated[NotRequired[list[Wheel]], ..., "all of them"]
    maker: typing_extensions.ReadOnly[typing_extensions.NotRequired[Annotated[str | None, None, "who made it"]]]


class Caravan(Cart, total=False):
    """A cart to live in."""

    beds: Required[int]
    dog: NotRequired[Wheel | None]


@pytest.mark.parametrize(("kind", "required"), [(Wheel, ["size"]), (Cart, ["name"]), (Caravan, ["name", "beds"])])
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_typed_dict_with_keys_that_may_be_missing(
    held_chat: ChatDiffusionGemma, kind: Any, required: list[str], method: Any
) -> None:
    answer = held_chat.with_structured_output(kind, method=method).invoke("Hello", max_tokens=300)
    assert set(required) <= answer.keys() <= kind.__annotations__.keys()
    (declared,) = held_chat.bind_tools([kind]).kwargs["tools"]  # type: ignore[attr-defined]
    parameters = declared["function"]["parameters"]
    assert sorted(parameters["required"]) == sorted(required)
    if kind is not Wheel:
        wheel = parameters["properties"]["wheels"]["items"]
        assert (wheel["required"], wheel["properties"]["size"]["description"]) == (["size"], "in inches")
        assert parameters["properties"]["wheels"]["description"] == "all of them"
    assert "dictionary" not in declared["function"].get("description", "")


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


T = TypeVar("T")


class Item(BaseModel):
    n: int = Field(ge=0, le=9)


class Page(BaseModel, Generic[T]):
    """A page of things."""

    items: list[T] = Field(max_length=2)


class Größe(Item):
    """A size."""


class Titled(Item):
    """It has a title with blanks."""

    model_config = ConfigDict(title="My nice page")


ODD_NAMES = [Page[Item], Größe, Titled]


@pytest.mark.parametrize("kind", ODD_NAMES)
def test_a_class_whose_name_cannot_stand_in_a_call(held_chat: ChatDiffusionGemma, kind: Any) -> None:
    for method in ("json_schema", "function_calling"):
        assert isinstance(held_chat.with_structured_output(kind, method=method).invoke("Hello"), kind)
    names = [tool["function"]["name"] for tool in held_chat.bind_tools(ODD_NAMES).kwargs["tools"]]  # type: ignore[attr-defined]
    own = names[ODD_NAMES.index(kind)]
    bound = held_chat.bind_tools(ODD_NAMES, tool_choice=own, parallel_tool_calls=False)
    message = bound.invoke("Hello")
    assert [call["name"] for call in message.tool_calls] == [own]
    chunks = list(bound.stream("Hello"))
    assert [call["name"] for chunk in chunks for call in chunk.tool_call_chunks] == [own]
    result = ToolMessage("done", tool_call_id=message.tool_calls[0]["id"])
    again = held_chat.bind_tools(ODD_NAMES, tool_choice="any").invoke([HumanMessage("Hello"), message, result])
    assert {call["name"] for call in again.tool_calls} <= set(names)


def test_a_schema_whose_title_has_blanks(held_chat: ChatDiffusionGemma) -> None:
    structured = held_chat.with_structured_output({**SCHEMA, "title": "a boat, red"}, method="function_calling")
    assert structured.invoke("Hello")["color"] in ("red", "blue")


class Box(typing_extensions.TypedDict):
    boats: typing_extensions.NotRequired[list[Boat]]
    best: Boat


class Boat(BaseModel):
    color: typing.Literal["red", "blue"]


class Crate(TypedDict):
    best: Boat


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_typed_dict_that_holds_pydantic_classes(held_chat: ChatDiffusionGemma, method: Any) -> None:
    found = held_chat.with_structured_output(Box, method=method).invoke("Pack.", max_tokens=96)
    assert isinstance(found, dict)
    TypeAdapter(Box).validate_python(found)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Pydantic takes typing.TypedDict")
def test_a_typed_dict_that_pydantic_does_not_take_names_the_remedy(held_chat: ChatDiffusionGemma) -> None:
    with pytest.raises(ValueError, match=r"typing_extensions\.TypedDict"):
        held_chat.with_structured_output(Crate)
