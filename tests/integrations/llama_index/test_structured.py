"""Structured prediction: objects of a class for any weights, in every mode that is ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal

import pytest
from llama_index.core.base.llms.types import MessageRole, ToolCallBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, RootModel, ValidationError, field_validator

from dgemma_core import Engine
from dgemma_core.errors import AnswerBudgetError, GrammarError
from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.llama_index.structured import show_schema
from dgemma_integrations.shared.shown_schema import shown


class Bridge(BaseModel):
    """A bridge."""

    name: str
    year: int


class Kind(StrEnum):
    ROAD = "road"
    RAIL = "rail"


class Report(BaseModel):
    """Everything at once."""

    bridges: list[Bridge] = Field(max_length=2)
    kind: Kind
    level: Literal["low", "high"]
    note: str | None = Field(default=None, max_length=8)


PROMPT = PromptTemplate("{text}\n\nExtract the facts about the Vexal bridge as JSON.")
TEXT = "The Vexal bridge was built in 1931."
MODES = [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION]


@pytest.fixture(params=MODES, ids=["json", "tool"])
def mode(request: pytest.FixtureRequest) -> PydanticProgramMode:
    return request.param


def quick(mode: PydanticProgramMode) -> dict[str, Any]:
    """Few steps, where it does not matter how good an answer is."""
    return {"max_denoising_steps": 6, "pydantic_program_mode": mode}


async def every_way(llm: DiffusionGemma, output_cls: type[BaseModel], **options: Any) -> list[BaseModel]:
    """The object of all four methods."""
    streamed = list(llm.stream_structured_predict(output_cls, PROMPT, options, text=TEXT))
    astream = await llm.astream_structured_predict(output_cls, PROMPT, options, text=TEXT)
    astreamed = [partial async for partial in astream]
    return [
        llm.structured_predict(output_cls, PROMPT, options, text=TEXT),
        await llm.astructured_predict(output_cls, PROMPT, options, text=TEXT),
        streamed[-1],
        astreamed[-1],
    ]


async def test_all_methods_give_the_same_object(embedded_engine: Engine, mode: PydanticProgramMode) -> None:
    llm = DiffusionGemma(
        engine=embedded_engine, seed=0, max_tokens=64, max_denoising_steps=8, pydantic_program_mode=mode
    )
    first, *others = await every_way(llm, Bridge)
    assert isinstance(first, Bridge)
    assert all(other == first for other in others)


def test_the_facts_are_found(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, seed=0, max_tokens=64, canvas_length=16)
    assert llm.structured_predict(Bridge, PROMPT, text=TEXT).year == 1931


async def test_random_weights_fit_the_schema_too(tiny_engine: Engine, mode: PydanticProgramMode) -> None:
    llm = DiffusionGemma(engine=tiny_engine, max_tokens=256, max_denoising_steps=2, pydantic_program_mode=mode)
    for output in await every_way(llm, Report, seed=0):
        assert isinstance(output, Report)


async def test_streamed_objects_grow(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, seed=0, max_tokens=96, canvas_length=8)
    partials = list(llm.stream_structured_predict(Bridge, PROMPT, text=TEXT))
    assert len(partials) > 1
    assert not isinstance(partials[0], Bridge)
    assert isinstance(partials[-1], Bridge)


async def test_a_structured_llm(embedded_engine: Engine, mode: PydanticProgramMode) -> None:
    llm = DiffusionGemma(
        engine=embedded_engine, seed=0, max_tokens=64, max_denoising_steps=8, pydantic_program_mode=mode
    )
    structured = llm.as_structured_llm(Bridge)
    chat = [ChatMessage(role="user", content=f"{TEXT} {{as it is}}")]
    responses = [structured.chat(chat), await structured.achat(chat), list(structured.stream_chat(chat))[-1]]
    responses += [chunk async for chunk in await structured.astream_chat(chat)][-1:]
    for response in responses:
        assert isinstance(response.raw, Bridge)
        assert Bridge.model_validate_json(response.message.content or "") == response.raw
    assert Bridge.model_validate_json(structured.complete(TEXT).text)
    assert Bridge.model_validate_json((await structured.acomplete(TEXT)).text)


class Prompts:
    """Reads what the model was sent from LlamaIndex's own events."""

    def __init__(self, events: Any) -> None:
        self._events = events

    def last(self) -> list[ChatMessage]:
        return [e for e in self._events._events if type(e).__name__ == "LLMChatStartEvent"][-1].messages


async def test_system_prompt_and_schema_are_sent_in_every_method(
    embedded_engine: Engine, mode: PydanticProgramMode, events: Any
) -> None:
    llm = DiffusionGemma(
        engine=embedded_engine,
        max_tokens=64,
        max_denoising_steps=2,
        system_prompt="Be exact.",
        pydantic_program_mode=mode,
    )
    ways: list[Callable[[], Any]] = [
        lambda: llm.structured_predict(Bridge, PROMPT, text=TEXT),
        lambda: list(llm.stream_structured_predict(Bridge, PROMPT, text=TEXT)),
    ]
    for way in ways:
        way()
        sent = Prompts(events).last()
        assert [(m.role, m.content) for m in sent[:1]] == [(MessageRole.SYSTEM, "Be exact.")]
    await llm.astructured_predict(Bridge, PROMPT, text=TEXT)
    sent = Prompts(events).last()
    assert sent[0].content == "Be exact."
    if mode == PydanticProgramMode.DEFAULT:
        assert shown(Bridge.model_json_schema()) in (sent[-1].content or "")


async def test_events(embedded_engine: Engine, mode: PydanticProgramMode, events: Any) -> None:
    llm = DiffusionGemma(
        engine=embedded_engine, seed=0, max_tokens=64, max_denoising_steps=8, pydantic_program_mode=mode
    )
    await every_way(llm, Bridge)
    assert events.count("LLMStructuredPredictStartEvent") == events.count("LLMStructuredPredictEndEvent") == 4
    assert events.count("LLMChatStartEvent") == events.count("LLMChatEndEvent") == 4


def test_any_schema_that_is_not_an_object(embedded_engine: Engine) -> None:
    class Numbers(RootModel[list[int]]):
        root: list[int] = Field(max_length=2)

    llm = DiffusionGemma(engine=embedded_engine, seed=0, max_tokens=32)
    assert isinstance(llm.structured_predict(Numbers, PROMPT, text=TEXT), Numbers)


def test_text_modes_are_llama_indexes_own(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, seed=4, max_tokens=64, pydantic_program_mode=PydanticProgramMode.LLM)
    prompt = PromptTemplate("Hello {text}")
    # It only asks for JSON, which this model then gets wrong; ours cannot.
    with pytest.raises(ValueError, match=r"JSON|json"):
        llm.structured_predict(Bridge, prompt, text="there")


def test_bad_schemas_budgets_and_validators_are_named(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, seed=0, max_tokens=64)

    class Never(BaseModel):
        year: int = Field(gt=3, lt=2)

    class Refused(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def _never(cls, value: str) -> str:
            raise ValueError("not this one")

    with pytest.raises(GrammarError):
        llm.structured_predict(Never, PROMPT, text=TEXT)
    with pytest.raises(AnswerBudgetError):
        llm.structured_predict(Bridge, PROMPT, {"max_tokens": 3}, text=TEXT)
    with pytest.raises(ValidationError, match="not this one"):
        llm.structured_predict(Refused, PROMPT, text=TEXT)


def test_the_schema_is_shown_in_the_last_user_message() -> None:
    schema = Bridge.model_json_schema()
    system, user = ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hello")
    assert show_schema([system, user], schema)[1].content.startswith("Hello\n\nAnswer with JSON")
    assert [m.role for m in show_schema([system], schema)] == [MessageRole.SYSTEM, MessageRole.USER]
    assert user.content == "Hello"
    prompt = ChatPromptTemplate(message_templates=[system, user])
    assert [m.content for m in prompt.format_messages()] == ["Be brief.", "Hello"]


async def test_thinking_and_stops(embedded_engine: Engine, mode: PydanticProgramMode) -> None:
    llm = DiffusionGemma(engine=embedded_engine, seed=0, stop=["a"], **quick(mode))
    assert all(isinstance(bridge, Bridge) for bridge in await every_way(llm, Bridge))
    with pytest.raises(ValueError, match="thinking='yes'"):
        llm.structured_predict(Bridge, PROMPT, llm_kwargs={"thinking": "yes"}, text=TEXT)


class Facts(BaseModel):
    """Only optional fields."""

    owner: str | None = Field(default=None, max_length=8)
    parts: list[Bridge] | None = Field(default=None, max_length=1)


async def test_objects_hold_declared_keys_only(tiny_engine: Engine, mode: PydanticProgramMode, events: Any) -> None:
    llm = DiffusionGemma(engine=tiny_engine, max_tokens=128, max_denoising_steps=2, pydantic_program_mode=mode)
    for seed in range(4):
        llm.structured_predict(Facts, PROMPT, {"seed": seed}, text=TEXT)
        message = [e for e in events._events if type(e).__name__ == "LLMChatEndEvent"][-1].response.message
        written = [dict(b.tool_kwargs) for b in message.blocks if isinstance(b, ToolCallBlock)]
        (value,) = written or [json.loads(message.content)]
        assert value.keys() <= {"owner", "parts"}
        assert all(part.keys() == {"name", "year"} for part in value.get("parts") or ())


async def test_the_schema_is_shown_unless_it_is_switched_off(embedded_engine: Engine, events: Any) -> None:
    llm = DiffusionGemma(engine=embedded_engine, max_tokens=64, max_denoising_steps=2)
    silent = DiffusionGemma(engine=embedded_engine, max_tokens=64, max_denoising_steps=2, show_schema=False)
    text, hidden = shown(Bridge.model_json_schema()), {"show_schema": False}
    chat = [ChatMessage(role="user", content=TEXT)]

    def sent() -> str:
        return Prompts(events).last()[-1].content or ""

    for ask in (
        lambda model, **options: model.structured_predict(Bridge, PROMPT, options, text=TEXT),
        lambda model, **options: list(model.stream_structured_predict(Bridge, PROMPT, options, text=TEXT)),
        lambda model, **options: model.as_structured_llm(Bridge).chat(chat, **options),
    ):
        ask(llm)
        assert sent().endswith(text)
        ask(llm, **hidden)
        assert "schema" not in sent()
        ask(silent)
        assert "schema" not in sent()
    await silent.astructured_predict(Bridge, PROMPT, {"show_schema": True}, text=TEXT)
    assert sent().endswith(text)


def test_a_response_format_is_shown_as_well(embedded_engine: Engine) -> None:
    llm = DiffusionGemma(engine=embedded_engine, max_tokens=64, max_denoising_steps=2)
    schema = Bridge.model_json_schema()
    form = {"type": "json_schema", "json_schema": {"name": "bridge", "schema": schema}}

    def tokens(text: str, **options: Any) -> int:
        return llm.chat([ChatMessage(role="user", content=text)], **options).raw["usage"]["prompt_tokens"]

    assert tokens("Hello", response_format=form) == tokens(f"Hello\n\n{shown(schema)}")
    assert tokens("Hello", response_format=form, show_schema=False) == tokens("Hello")


def test_the_schema_stands_where_the_user_last_asked() -> None:
    roles = ["system", "user", "assistant", "tool"]
    history = [ChatMessage(role=role, content=role) for role in roles]
    contents = [m.content or "" for m in show_schema(history, Bridge.model_json_schema())]
    assert [len(text) > 20 for text in contents] == [False, True, False, False]
    answered = show_schema(history[:3], Bridge.model_json_schema())
    assert [m.role.value for m in answered] == ["system", "user", "assistant", "user"]
