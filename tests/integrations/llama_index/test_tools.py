"""Tool calls: through every entry point, in both places LlamaIndex looks for them, and in agents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import pytest
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatResponse, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.tools import BaseTool, FunctionTool
from pydantic import BaseModel, Field

from dgemma_core import Engine, Generation, Grammar, Usage
from dgemma_core.api.messages import ToolCall
from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.llama_index.responses import ChatRespond, finished_response

ASKED = "What is the value of magic_function(3)? Use the tool."


def magic_function(input: int) -> int:  # noqa: A002 -- the name the model is shown
    """Applies a magic function to an input."""
    return input + 2


def get_weather(city: str, days: int = 1) -> str:
    """Get the weather of a city."""
    return f"It is sunny in {city}."


class Part(BaseModel):
    """A part made of parts."""

    title: str = Field(max_length=6)
    parts: list[Part] = Field(max_length=1)


@pytest.fixture
def tools() -> list[BaseTool]:
    return [FunctionTool.from_defaults(magic_function), FunctionTool.from_defaults(get_weather)]


@pytest.fixture
def llm(embedded_engine: Engine) -> DiffusionGemma:
    # Few steps: what is looked at here does not depend on how good an answer is.
    return DiffusionGemma(engine=embedded_engine, seed=0, max_tokens=48, max_denoising_steps=6)


def calls_of(response: ChatResponse) -> list[ToolCallBlock]:
    return [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]


async def every_way(llm: DiffusionGemma, tools: Sequence[BaseTool], **kwargs: Any) -> list[ChatResponse]:
    """The final response of all four chat methods with tools."""
    astreamed = [chunk async for chunk in await llm.astream_chat_with_tools(tools, ASKED, **kwargs)]
    return [
        llm.chat_with_tools(tools, ASKED, **kwargs),
        await llm.achat_with_tools(tools, ASKED, **kwargs),
        list(llm.stream_chat_with_tools(tools, ASKED, **kwargs))[-1],
        astreamed[-1],
    ]


async def test_a_required_call_in_every_method_and_in_both_places(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    for response in await every_way(llm, tools, tool_required=True):
        (block,) = calls_of(response)
        assert block.tool_name in ("magic_function", "get_weather")
        (beside,) = response.message.additional_kwargs["tool_calls"]
        assert beside["id"] == block.tool_call_id
        assert json.loads(beside["function"]["arguments"]) == block.tool_kwargs
        (selection,) = llm.get_tool_calls_from_response(response)
        assert (selection.tool_id, selection.tool_name) == (block.tool_call_id, block.tool_name)
        assert selection.tool_kwargs == block.tool_kwargs
        assert response.message.content is None
        assert response.raw["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("choice", ["get_weather", {"type": "function", "function": {"name": "get_weather"}}])
async def test_a_named_tool_is_called(llm: DiffusionGemma, tools: list[BaseTool], choice: Any) -> None:
    for response in await every_way(llm, tools, tool_choice=choice):
        assert [call.tool_name for call in calls_of(response)] == ["get_weather"]


@pytest.mark.parametrize("required", ["any", "required"])
def test_words_for_a_required_call(llm: DiffusionGemma, tools: list[BaseTool], required: str) -> None:
    assert calls_of(llm.chat_with_tools(tools, ASKED, tool_choice=required))


def test_no_call_where_none_is_allowed(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    response = llm.chat_with_tools(tools, ASKED, tool_choice="none")
    assert not calls_of(response)
    assert not response.message.additional_kwargs
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="expected a tool call"):
        llm.get_tool_calls_from_response(response)


def test_one_call_at_most_unless_several_are_allowed(tiny_engine: Engine, tools: list[BaseTool]) -> None:
    # Random weights: only the grammar can keep them to one call.
    llm = DiffusionGemma(engine=tiny_engine, max_tokens=96, max_denoising_steps=3)
    for seed in range(3):
        response = llm.chat_with_tools(tools, ASKED, tool_required=True, seed=seed)
        assert len(calls_of(response)) == 1


def test_every_call_has_an_id_of_its_own(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    responses = [llm.chat_with_tools(tools, ASKED, tool_required=True) for _ in range(2)]
    assert len({call.tool_call_id for response in responses for call in calls_of(response)}) == 2


def test_the_callers_history_stays_as_it_is(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    history = [ChatMessage(role="system", content="Answer briefly.")]
    llm.chat_with_tools(tools, ASKED, chat_history=history, max_tokens=16)
    assert len(history) == 1


def test_without_tools_it_is_a_chat(llm: DiffusionGemma) -> None:
    user = ChatMessage(role="user", content="Hello")
    assert llm.chat_with_tools([], "Hello").message.content == llm.chat([user]).message.content


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    """A box."""

    content: T


async def test_tools_keep_names_that_cannot_be_called(llm: DiffusionGemma) -> None:
    tool = get_function_tool(Box[int])
    assert tool.metadata.name == "Box[int]"
    for options in ({"tool_required": True}, {"tool_choice": "Box[int]"}):
        for response in await every_way(llm, [tool], **options):
            assert [call.tool_name for call in calls_of(response)] == ["Box[int]"]
    assert isinstance(llm.predict_and_call([tool], "A box with 3.", tool_required=True).sources[0].raw_output, Box)


async def test_predict_and_call(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    for response in (
        llm.predict_and_call(tools, ASKED, tool_choice="magic_function"),
        await llm.apredict_and_call(tools, ASKED, tool_choice="magic_function"),
    ):
        (source,) = response.sources
        assert source.tool_name == "magic_function"
        assert source.raw_output == source.raw_input["kwargs"]["input"] + 2
        assert response.response == str(source.raw_output)


def test_bad_tools_are_named(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    user = [ChatMessage(role="user", content="Hello")]
    with pytest.raises(ValueError, match=r"'Hello'.*OpenAI function dict"):
        llm.chat(user, tools=["Hello"])
    with pytest.raises(ValueError, match=r"tool_choice='fly'.*magic_function, get_weather"):
        llm.chat_with_tools(tools, "Hello", tool_choice="fly")
    with pytest.raises(ValueError, match="give them to chat"):
        llm.complete("Hello", formatted=True, tools=[tools[0].metadata.to_openai_tool()])
    with pytest.raises(ValueError, match="response_format and grammar"):
        llm.chat(user, grammar=Grammar.json(), response_format={"type": "json_object"})


def test_thoughts_stand_behind_the_text_and_beside_it() -> None:
    usage = Usage(prompt_tokens=3, completion_tokens=5)
    calls = (ToolCall("get_weather", {"city": "Kerl"}, "call_1"),)
    generation = Generation("It rains.", (), "tool_calls", usage, tool_calls=calls, reasoning="Look at the sky.")
    response = finished_response(ChatRespond(), generation, "embedded")
    assert [type(block) for block in response.message.blocks] == [TextBlock, ThinkingBlock, ToolCallBlock]
    assert response.message.content == "It rains."
    assert response.additional_kwargs["thinking_delta"] == "Look at the sky."
    assert response.additional_kwargs["prompt_tokens"] == 3


async def test_thinking_is_asked_for_in_every_way(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    user = [ChatMessage(role="user", content=ASKED)]
    short = llm.chat(user, max_tokens=4).raw["usage"]["prompt_tokens"]
    thinking = llm.model_copy(update={"thinking": True})
    for response in (
        llm.chat(user, thinking=True, max_tokens=4),
        thinking.chat(user, max_tokens=4),
        await thinking.achat(user, max_tokens=4),
        list(thinking.stream_chat(user, max_tokens=4))[-1],
        thinking.complete(ASKED, max_tokens=4),
    ):
        assert response.raw["usage"]["prompt_tokens"] > short
    assert thinking.chat(user, thinking=False, max_tokens=4).raw["usage"]["prompt_tokens"] == short
    assert calls_of(thinking.chat_with_tools(tools, ASKED, tool_required=True, max_tokens=96))
    with pytest.raises(ValueError, match="thinking='yes'"):
        llm.chat(user, thinking="yes")


# --- agents ---


async def test_a_function_agent_calls_a_tool_and_answers(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    agent = FunctionAgent(tools=tools, llm=llm, initial_tool_choice="magic_function")
    handler = agent.run(ASKED)
    events = [event async for event in handler.stream_events()]
    (result,) = [event for event in events if isinstance(event, ToolCallResult)][:1]
    assert result.tool_name == "magic_function"
    assert result.tool_output.raw_output == result.tool_kwargs["input"] + 2
    answer = await handler
    streamed = "".join(event.delta for event in events if isinstance(event, AgentStream))
    assert str(answer)
    assert streamed.endswith(str(answer))


async def test_a_function_agent_without_streaming(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    agent = FunctionAgent(tools=tools, llm=llm, initial_tool_choice="magic_function", streaming=False)
    answer = await agent.run(ASKED)
    assert str(answer)
    assert [call.tool_name for call in answer.tool_calls][:1] == ["magic_function"]


async def test_an_agent_with_an_output_class(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    class Value(BaseModel):
        value: int

    agent = FunctionAgent(tools=tools, llm=llm, initial_tool_choice="magic_function", output_cls=Value)
    answer = await agent.run(ASKED)
    assert isinstance(answer.get_pydantic_model(Value), Value)


async def test_a_react_agent_answers_or_says_why_not(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    # Its way of asking for tools in prose is not among what the small model has learnt: it answers directly.
    answer = await ReActAgent(tools=tools, llm=llm).run("Hello")
    assert str(answer).strip()


async def test_a_workflow_hands_over_between_agents(llm: DiffusionGemma, tools: list[BaseTool]) -> None:
    first = FunctionAgent(
        name="desk", description="Takes requests.", llm=llm, initial_tool_choice="handoff", can_handoff_to=["weather"]
    )
    second = FunctionAgent(name="weather", description="Knows the weather.", tools=tools[1:], llm=llm)
    workflow = AgentWorkflow(agents=[first, second], root_agent="desk")
    handler = workflow.run("What is the weather in Kerl?", max_iterations=6)
    results = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    assert results[0].tool_name == "handoff"
    assert set(results[0].tool_kwargs) == {"to_agent", "reason"}
    assert str(await handler).strip()


def test_a_class_that_contains_itself(llm: DiffusionGemma) -> None:
    tool = get_function_tool(Part)
    response = llm.chat_with_tools([tool], "Hello", tool_required=True, max_tokens=200)
    chosen = llm.get_tool_calls_from_response(response)
    assert chosen
    for selection in chosen:
        assert Part.model_validate(selection.tool_kwargs)


async def test_a_call_that_no_tool_can_answer_is_refused(llm: DiffusionGemma) -> None:
    with pytest.raises(ValueError, match="tool_required=True: there are no tools"):
        await every_way(llm, [], tool_required=True)
    with pytest.raises(ValueError, match=r"tool_choice='any'.*there are no tools"):
        await every_way(llm, [], tool_choice="any")
    assert not calls_of((await every_way(llm, [], tool_choice="none", max_tokens=4))[0])
    for name in ("tool_required", "parallel_tool_calls"):
        with pytest.raises(ValueError, match=f"{name}='no': must be True or False"):
            llm.chat([ChatMessage(role="user", content="Hello")], **{name: "no"})
