"""What users of ``with_structured_output`` and ``response_format`` see: keys, settings of a call, the shown schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import typing_extensions
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.load import dumpd
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableBinding
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from dgemma_core import Engine
from dgemma_integrations.langchain import ChatDiffusionGemma
from dgemma_integrations.shared.shown_schema import shown

KINDS = ("class", "inherited", "typed dict", "dataclass", "no type")
METHODS = ("json_schema", "function_calling", "json_mode")


class Bridge(BaseModel):
    """A bridge."""

    owner: str | None = Field(default=None, max_length=8, description="Who owns it.")
    year: int | None = None


class Line(Bridge):
    bridges: list[Bridge] = Field(default=[], max_length=2)


class Tower(typing_extensions.TypedDict, total=False):
    """A tower."""

    owner: str
    year: int


@dataclass
class Mill:
    """A mill."""

    year: int = 0


UNTYPED = {"title": "boat", "properties": {"color": {"enum": ["red", "blue"]}, "mast": {"required": ["length"]}}}


def undeclared(value: Any, kind: Any) -> set[str]:
    """Keys that a class does not declare, at any depth."""
    schema = kind if isinstance(kind, dict) else TypeAdapter(kind).json_schema()
    declared = {"length"}

    def declare(node: Any) -> None:
        if isinstance(node, dict):
            declared.update(node.get("properties", {}))
            for inner in node.values():
                declare(inner)

    def keys(node: Any) -> set[str]:
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return {*(node if isinstance(node, dict) else ()), *(key for value in inner for key in keys(value))}

    declare(schema)
    return keys(value) - declared


@pytest.mark.parametrize("kind", [Bridge, Line, Tower, Mill, UNTYPED], ids=KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_answers_hold_declared_keys_only(held_chat: ChatDiffusionGemma, method: Any, kind: Any) -> None:
    structured = held_chat.with_structured_output(kind, method=method, include_raw=True)
    for seed in range(4):
        raw = structured.invoke("Hello", seed=seed)["raw"]
        value = raw.tool_calls[0]["args"] if raw.tool_calls else TypeAdapter(Any).validate_json(raw.text)
        assert isinstance(value, dict)
        assert not undeclared(value, kind)


def test_a_class_may_allow_other_keys(held_chat: ChatDiffusionGemma) -> None:
    class Loose(BaseModel):
        model_config = ConfigDict(extra="allow")
        year: int | None = None

    found = [held_chat.with_structured_output(Loose).invoke("Hello", seed=seed).model_extra for seed in range(6)]
    assert any(found)


def test_an_optional_field_that_the_text_states_is_found(embedded_engine: Engine) -> None:
    class Facts(BaseModel):
        owner: str | None = None
        year: int | None = None

    chat = ChatDiffusionGemma(engine=embedded_engine, max_tokens=48, seed=0)
    text = "The Vexal bridge was built in 1931. The owner of the Vexal bridge is Mira Tanu."
    found = chat.with_structured_output(Facts).invoke(f"{text}\n\nExtract the facts about the Vexal bridge.")
    assert found == Facts(owner="Mira Tanu", year=1931)


@pytest.mark.parametrize("method", METHODS)
async def test_include_raw_keeps_the_settings_of_a_call(held_chat: ChatDiffusionGemma, method: Any) -> None:
    class Note(BaseModel):
        text: str

    structured = held_chat.with_structured_output(Note, method=method, include_raw=True)
    expected = held_chat.with_structured_output(Note, method=method).invoke("Hello", max_tokens=24, seed=5)

    async def astreamed() -> list[Any]:
        return [chunk async for chunk in structured.astream("Hello", max_tokens=24, seed=5)]

    outs = [
        structured.invoke("Hello", max_tokens=24, seed=5),
        await structured.ainvoke("Hello", max_tokens=24, seed=5),
        *structured.batch(["Hello", "Hello"], max_tokens=24, seed=5),
        *await structured.abatch(["Hello"], max_tokens=24, seed=5),
        structured.with_retry().invoke("Hello", max_tokens=24, seed=5),
        structured.with_fallbacks([structured]).invoke("Hello", max_tokens=24, seed=5),
        structured.bind(max_tokens=24, seed=5).invoke("Hello"),
        {k: v for chunk in structured.stream("Hello", max_tokens=24, seed=5) for k, v in chunk.items()},
        {k: v for chunk in await astreamed() for k, v in chunk.items()},
    ]
    for out in outs:
        assert out["raw"].usage_metadata["output_tokens"] <= 24
        assert (out["parsed"], out["parsing_error"]) == (expected, None)
    with pytest.raises(ValueError, match="bogus"):
        structured.invoke("Hello", bogus=1)
    if method != "function_calling":
        with pytest.raises(ValueError, match="a stop string would cut"):
            structured.invoke("Hello", stop=["e"])


def test_bound_settings_are_kept(held_chat: ChatDiffusionGemma) -> None:
    class Note(BaseModel):
        text: str

    bound = held_chat.bind(max_tokens=24, seed=5).with_config(tags=["mine"])
    expected = held_chat.with_structured_output(Note, include_raw=True).invoke("Hello", max_tokens=24, seed=5)
    for runnable in (bound, bound.bind(max_tokens=24)):
        assert runnable.with_structured_output(Note, include_raw=True).invoke("Hello")["parsed"] == expected["parsed"]
        assert runnable.with_structured_output(Note).invoke("Hello", max_tokens=24) == expected["parsed"]
        message = runnable.bind_tools([Note], tool_choice="any").invoke("Hello")
        assert message.usage_metadata["output_tokens"] <= 24
        with_tools = runnable.bind_tools([Note], tool_choice="any")
        assert isinstance(with_tools.with_structured_output(Note).invoke("Hello"), Note)
    agent = create_agent(bound, response_format=Note)
    (answer,) = [m for m in agent.invoke({"messages": [("user", "Hello")]})["messages"] if m.type == "ai"]
    assert answer.usage_metadata["output_tokens"] <= 24
    assert dumpd(held_chat.bind(seed=1))["id"] == dumpd(RunnableBinding(bound=held_chat, kwargs={"seed": 1}))["id"]


@pytest.mark.parametrize("kind", [Bridge, Line, Tower, Mill, UNTYPED], ids=KINDS)
def test_the_model_sees_the_schema_of_its_answer(held_chat: ChatDiffusionGemma, kind: Any) -> None:
    def asked(runnable: Runnable[Any, Any], **settings: Any) -> int:
        return int(runnable.invoke("Hello", max_tokens=60, **settings)["raw"].usage_metadata["input_tokens"])

    bare = held_chat.get_num_tokens_from_messages([HumanMessage("Hello")])
    for method in ("json_schema", "json_mode"):
        structured = held_chat.with_structured_output(kind, method=method, include_raw=True)  # type: ignore[arg-type]
        described = structured.first.kwargs["response_format"]["json_schema"]["schema"]  # type: ignore[attr-defined]
        text = f"Hello\n\n{shown(described)}"
        assert asked(structured) == held_chat.get_num_tokens_from_messages([HumanMessage(text)]) > bare
        assert asked(structured, show_schema=False) == bare
        hidden = held_chat.with_structured_output(kind, method=method, include_raw=True, show_schema=False)  # type: ignore[arg-type]
        assert asked(hidden) == bare
        silent = held_chat.model_copy(update={"show_schema": False})
        assert asked(silent.with_structured_output(kind, method=method, include_raw=True)) == bare  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="all messages are empty"):
        structured.invoke("")
    with pytest.raises(ValueError, match="show_schema='no'"):
        structured.invoke("Hello", show_schema="no")


def test_the_short_form_has_names_types_and_descriptions() -> None:
    text = shown(Line.model_json_schema())
    assert text.startswith("Answer with JSON that follows this schema:\n{")
    assert text.endswith("Return JSON with the keys owner, year, bridges.")
    for part in ('"owner": {"type": ["string", "null"], "description": "Who owns it."', '"description": "A bridge."'):
        assert part in text
    assert "title" not in text
    assert "$ref" not in text  # The one use of a definition has it in its place.


@pytest.mark.parametrize("strategy", [lambda kind: kind, ProviderStrategy, ToolStrategy])
def test_an_agents_model_sees_the_schema_of_its_response(held_chat: ChatDiffusionGemma, strategy: Any) -> None:
    counts = []
    for chat in (held_chat, held_chat.model_copy(update={"show_schema": False})):
        agent = create_agent(chat.model_copy(update={"parallel_tool_calls": False}), response_format=strategy(Bridge))
        out = agent.invoke({"messages": [("user", "Hello")]})
        assert isinstance(out["structured_response"], Bridge)
        counts.append(next(m for m in out["messages"] if m.type == "ai").usage_metadata["input_tokens"])
    bare = held_chat.get_num_tokens_from_messages([HumanMessage("Hello")])
    if strategy is ToolStrategy:
        assert counts[0] == counts[1]  # The declared tool shows it.
    else:
        text = f"Hello\n\n{shown(Bridge.model_json_schema())}"
        assert counts == [held_chat.get_num_tokens_from_messages([HumanMessage(text)]), bare]
