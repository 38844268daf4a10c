"""Answers and calls that were cut for want of room, as users of LlamaIndex see them."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentOutput, FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from dgemma_core import Engine
from dgemma_core.errors import AnswerCutError
from dgemma_integrations.llama_index import DiffusionGemma

TEXT = "The Halur bridge was built in 1907. The owner of the Halur bridge is Mira Tanu."
EXTRACT = f"{TEXT}\n\nExtract as JSON with the fields year, owner: the Halur bridge."
PROMPT = PromptTemplate(EXTRACT)
WEIGHT = "What is the weight of Halur?"
MODES = [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION]


class Bridge(BaseModel):
    """A bridge."""

    year: int
    owner: str


def weigh(name: str) -> str:
    """Gets the weight of something."""
    return f"{name}: 512 kilograms"


GET_WEIGHT = FunctionTool.from_defaults(weigh, name="get_weight")


def llm_of(engine: Engine, **settings: Any) -> DiffusionGemma:
    return DiffusionGemma(engine=engine, **{"seed": 0, "max_tokens": 128, "max_denoising_steps": 8, **settings})


def short_room(engine: Engine, mode: PydanticProgramMode) -> dict[str, int]:
    """``llm_kwargs`` with a room in which an object fits, but not all that the model wants to write."""
    return {"max_tokens": 14 if mode == PydanticProgramMode.DEFAULT else 22}


async def test_a_call_cut_short_says_length(embedded_engine: Engine) -> None:
    llm = llm_of(embedded_engine)
    asked: dict[str, Any] = {"user_msg": WEIGHT, "tool_required": True}
    for room, name, reason in [(16, "Hal", "length"), (17, "Halur", "tool_calls")]:
        responses = [
            llm.chat_with_tools([GET_WEIGHT], **asked, max_tokens=room),
            await llm.achat_with_tools([GET_WEIGHT], **asked, max_tokens=room),
            list(llm.stream_chat_with_tools([GET_WEIGHT], **asked, max_tokens=room))[-1],
        ]
        for response in responses:
            (call,) = llm.get_tool_calls_from_response(response)
            assert call.tool_kwargs == {"name": name}
            assert response.raw["finish_reason"] == reason
            assert response.message.additional_kwargs.get("finish_reason") == (reason if reason == "length" else None)


async def test_an_agent_sees_that_a_call_was_cut(embedded_engine: Engine) -> None:
    agent = FunctionAgent(tools=[GET_WEIGHT], llm=llm_of(embedded_engine, max_tokens=16), streaming=True)
    handler = agent.run(WEIGHT, max_iterations=4)
    outputs = [event async for event in handler.stream_events() if isinstance(event, AgentOutput)]
    assert outputs[0].tool_calls[0].tool_kwargs == {"name": "Hal"}
    assert outputs[0].raw["finish_reason"] == "length"
    assert outputs[0].response.additional_kwargs["finish_reason"] == "length"
    await handler


@pytest.mark.parametrize("mode", MODES)
async def test_an_object_cut_short_is_told_in_the_log(
    embedded_engine: Engine, caplog: pytest.LogCaptureFixture, mode: PydanticProgramMode
) -> None:
    llm, short = llm_of(embedded_engine, pydantic_program_mode=mode), short_room(embedded_engine, mode)
    whole = llm.structured_predict(Bridge, PROMPT)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        cut = llm.structured_predict(Bridge, PROMPT, llm_kwargs=short)
        assert isinstance(cut, Bridge)
        assert cut != whole
        assert await llm.astructured_predict(Bridge, PROMPT, llm_kwargs=short) == cut
        assert list(llm.stream_structured_predict(Bridge, PROMPT, llm_kwargs=short))[-1] == cut
        stream = await llm.astream_structured_predict(Bridge, PROMPT, llm_kwargs=short)
        assert [part async for part in stream][-1] == cut
        as_llm = llm_of(embedded_engine, pydantic_program_mode=mode, **short).as_structured_llm(Bridge)
        assert as_llm.chat([ChatMessage(role="user", content=EXTRACT)]).raw == cut
    assert len(caplog.records) == 5
    assert all("Bridge" in r.getMessage() and "max_tokens" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("mode", MODES)
async def test_an_object_cut_short_may_be_an_error(embedded_engine: Engine, mode: PydanticProgramMode) -> None:
    short = short_room(embedded_engine, mode)
    strict = llm_of(embedded_engine, pydantic_program_mode=mode, on_length="raise")
    with pytest.raises(AnswerCutError, match=r"Bridge.*max_tokens") as caught:
        strict.structured_predict(Bridge, PROMPT, llm_kwargs=short)
    assert Bridge.model_validate_json(caught.value.text)
    assert strict.structured_predict(Bridge, PROMPT)
    with pytest.raises(AnswerCutError):
        await strict.astructured_predict(Bridge, PROMPT, llm_kwargs=short)
    with pytest.raises(AnswerCutError):
        list(strict.stream_structured_predict(Bridge, PROMPT, llm_kwargs=short))
    with pytest.raises(AnswerCutError):
        strict.model_copy(update=short).as_structured_llm(Bridge).complete(EXTRACT)
    llm = llm_of(embedded_engine, pydantic_program_mode=mode)
    with pytest.raises(AnswerCutError):
        llm.structured_predict(Bridge, PROMPT, llm_kwargs={**short, "on_length": "raise"})


def test_a_program_tells_that_a_call_was_cut(embedded_engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def program(**settings: Any) -> Any:
        return FunctionCallingProgram.from_defaults(Bridge, EXTRACT, llm=llm_of(embedded_engine, **settings))

    with caplog.at_level(logging.WARNING, logger="dgemma_integrations"):
        assert program()() is not None
        assert not caplog.records
        assert program(max_tokens=22)() is not None
        assert "Bridge" in caplog.text
    with pytest.raises(AnswerCutError):
        program(max_tokens=22, on_length="raise")()
    with pytest.raises(ValueError, match="on_length"):
        DiffusionGemma(on_length="stop")  # type: ignore[arg-type]
