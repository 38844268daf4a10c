"""Agents, graphs and chains around the model, on the checkpoint inside the package.

It is small and often decides wrongly. Tested is what holds for any weights: types, schemas, ids, events, sharing.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, Field

from dgemma_core import Engine, LoadSpec
from dgemma_integrations.langchain import ChatDiffusionGemma

QUESTION = "What is the weight of Halur?"


@tool
def get_weight(name: str) -> str:
    """Gets the weight of something."""
    return f"{name} weighs 512 kilograms."


@tool
def get_owner(name: str) -> str:
    """Gets the owner of something."""
    return f"{name} belongs to Kira Vonel."


class Report(BaseModel):
    """A report."""

    name: str = Field(max_length=20)
    kilograms: int = Field(ge=0, le=9999)


@pytest.fixture
def chat(embedded_engine: Engine) -> ChatDiffusionGemma:
    return ChatDiffusionGemma(engine=embedded_engine, max_tokens=64, parallel_tool_calls=False)


def check_conversation(messages: list[BaseMessage]) -> list[str]:
    """Every call is answered by the tool message with its id, right behind it; returns the names called."""
    waiting: list[tuple[str, str]] = []
    names = []
    for message in messages:
        if isinstance(message, ToolMessage):
            name, call_id = waiting.pop(0)
            assert (message.name, message.tool_call_id, message.status) == (name, call_id, "success")
            continue
        assert not waiting, "a call without its result"
        if isinstance(message, AIMessage):
            assert message.usage_metadata is not None
            waiting = [(call["name"], str(call["id"])) for call in message.tool_calls]
            names += [name for name, _ in waiting]
    assert not waiting
    ids = [call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    assert len(set(ids)) == len(ids)
    return names


async def test_an_agent_with_two_tools(chat: ChatDiffusionGemma) -> None:
    agent = create_agent(chat, tools=[get_weight, get_owner], system_prompt="Use the tools.")
    state = agent.invoke({"messages": [HumanMessage(QUESTION)]})
    awaited = await agent.ainvoke({"messages": [HumanMessage(QUESTION)]})
    for messages in (state["messages"], awaited["messages"]):
        assert check_conversation(messages)[0] == "get_weight"
        assert isinstance(messages[-1], AIMessage)
        assert not messages[-1].tool_calls
    assert [m.text for m in state["messages"]] == [m.text for m in awaited["messages"]]


STRATEGIES = [
    pytest.param(Report, id="schema"),
    pytest.param(ProviderStrategy(Report), id="provider"),
    pytest.param(ToolStrategy(Report), id="tool"),
]


@pytest.mark.parametrize("response_format", STRATEGIES)
async def test_structured_responses(chat: ChatDiffusionGemma, response_format: Any) -> None:
    agent = create_agent(chat, response_format=response_format)
    for state in (agent.invoke({"messages": [HumanMessage(QUESTION)]}),
                  await agent.ainvoke({"messages": [HumanMessage(QUESTION)]})):  # fmt: skip
        assert isinstance(state["structured_response"], Report)
        called = check_conversation(state["messages"])
        assert called == (["Report"] if isinstance(response_format, ToolStrategy) else [])


@pytest.mark.parametrize("response_format", STRATEGIES)
def test_structured_responses_beside_tools(chat: ChatDiffusionGemma, response_format: Any) -> None:
    # How long these weights go on calling is theirs to decide.
    agent = create_agent(chat, tools=[get_weight, get_owner], response_format=response_format)
    state = agent.invoke({"messages": [HumanMessage(QUESTION)]}, {"recursion_limit": 40})
    assert isinstance(state["structured_response"], Report)
    assert set(check_conversation(state["messages"])) <= {"get_weight", "get_owner", "Report"}


async def test_an_agent_remembers(chat: ChatDiffusionGemma) -> None:
    agent = create_agent(chat, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    first = await agent.ainvoke({"messages": [HumanMessage("The Orvin tower is red.")]}, config)
    second = await agent.ainvoke({"messages": [HumanMessage("What color is the Orvin tower?")]}, config)
    assert second["messages"][: len(first["messages"])] == first["messages"]
    last = second["messages"][-1]
    assert last.usage_metadata["input_tokens"] == chat.get_num_tokens_from_messages(second["messages"][:-1])
    assert last.usage_metadata["input_token_details"]["cache_read"] > 0


async def test_events_of_an_agent(chat: ChatDiffusionGemma) -> None:
    agent = create_agent(chat, tools=[get_weight, get_owner])
    given: Any = {"messages": [HumanMessage(QUESTION)]}
    events = [event async for event in agent.astream_events(given, version="v2")]
    kinds = [event["event"] for event in events]
    assert kinds.count("on_chat_model_start") == kinds.count("on_chat_model_end") >= 2
    assert kinds.count("on_tool_start") == kinds.count("on_tool_end") >= 1
    ended = [event["data"]["output"] for event in events if event["event"] == "on_chat_model_end"]
    streamed: dict[str, AIMessageChunk] = {}
    for event in events:
        if event["event"] == "on_chat_model_stream":
            chunk = event["data"]["chunk"]
            streamed[event["run_id"]] = streamed[event["run_id"]] + chunk if event["run_id"] in streamed else chunk
    assert [m.text for m in streamed.values()] == [m.text for m in ended]
    assert [m.tool_calls for m in streamed.values()] == [m.tool_calls for m in ended]


async def test_messages_of_a_graph_are_streamed(chat: ChatDiffusionGemma) -> None:
    agent = create_agent(chat, tools=[get_weight, get_owner])
    given: Any = {"messages": [HumanMessage(QUESTION)]}
    whole = agent.invoke(given)["messages"]
    told = [message for message, _ in agent.stream(given, stream_mode="messages")]
    awaited = [message async for message, _ in agent.astream(given, stream_mode="messages")]
    for stream in (told, awaited):
        by_id: dict[str, Any] = {}
        for message in stream:
            by_id[message.id] = by_id[message.id] + message if message.id in by_id else message
        assert [m.text for m in by_id.values()] == [m.text for m in whole[1:]]


class Places(TypedDict):
    places: list[str]
    answers: Annotated[list[str], operator.add]


async def test_parallel_branches_share_denoising_steps() -> None:
    """Four nodes of one superstep ask at once; the engine walks their canvases together."""
    with Engine(LoadSpec()) as engine:
        engine.load()
        model = ChatDiffusionGemma(engine=engine, temperature=0, max_tokens=32, confidence_threshold=1e-9,
                                   max_denoising_steps=16)  # fmt: skip

        def branch(number: int) -> Any:
            async def ask(state: Places) -> dict[str, list[str]]:
                place = state["places"][number]
                answer = await model.ainvoke(f"The {place} bridge was built in 19{number}1.\n\nWhen was it built?")
                return {"answers": [answer.text]}

            return ask

        graph = StateGraph(Places)
        for number in range(4):
            graph.add_node(f"ask_{number}", branch(number))
            graph.add_edge(START, f"ask_{number}")
            graph.add_edge(f"ask_{number}", END)
        app = graph.compile()
        state = await app.ainvoke({"places": ["Vexal", "Halur", "Orvin", "Zonel"], "answers": []})
        assert len(state["answers"]) == 4
        stats = engine.stats()
        assert stats.max_batch == 4
        # Alone, each would have taken as many passes as all of them took together.
        assert stats.forward_passes < stats.denoising_steps / 2


async def test_a_chain_with_parallel_parts(chat: ChatDiffusionGemma) -> None:
    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    ask = prompt | chat | StrOutputParser()
    chain = RunnablePassthrough.assign(answers=RunnableParallel(plain=ask, short=prompt | chat.bind(max_tokens=4)))
    given = {"context": "The Vexal bridge was built in 1931.", "question": "When was the Vexal bridge built?"}
    state = await chain.ainvoke(given)
    assert state["answers"]["plain"] == ask.invoke(given) == "".join(ask.stream(given))
    assert "1931" in state["answers"]["plain"]
    assert state["answers"]["short"].usage_metadata["output_tokens"] == 4
    chunks = [chunk async for chunk in chain.astream(given)]
    assert reduce_texts(chunks) == state["answers"]["plain"]


def reduce_texts(chunks: list[dict[str, Any]]) -> str:
    return "".join(chunk["answers"].get("plain", "") for chunk in chunks if "answers" in chunk)
