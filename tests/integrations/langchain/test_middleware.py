"""Routers and guards in front of an agent, on the checkpoint inside the package.

It decides badly; what is tested follows from its probabilities, whatever they are.
"""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from dgemma_core import Engine
from dgemma_integrations.langchain import ChatDiffusionGemma
from dgemma_integrations.langchain.middleware import (
    DiffusionGemmaGuard,
    DiffusionGemmaRouter,
    GuardViolationError,
    Route,
)

QUESTION = "Does the text speak of a bridge?"
TEXT = "The Halur bridge was built in 1907."


@tool
def get_weight(name: str) -> str:
    """Gets the weight of something."""
    return "512 kilograms"


@tool
def get_owner(name: str) -> str:
    """Gets the owner of something."""
    return "Kira Vonel"


class Year(BaseModel):
    year: int


@pytest.fixture
def chat(embedded_engine: Engine) -> ChatDiffusionGemma:
    return ChatDiffusionGemma(engine=embedded_engine, temperature=0, max_tokens=48)


def guard(engine: Engine, **settings: Any) -> DiffusionGemmaGuard:
    return DiffusionGemmaGuard(QUESTION, engine=engine, **settings)


def ask(agent: Any, text: str = TEXT) -> dict[str, Any]:
    state: dict[str, Any] = agent.invoke({"messages": [HumanMessage(text)]})
    return state


async def test_a_guard_ends_the_run_before_the_model(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    # From a probability of 0 on everything is a violation.
    agent = create_agent(chat, middleware=[guard(embedded_engine, threshold=0, message="No.")])
    submitted = embedded_engine.stats().submitted
    for state in (ask(agent), await agent.ainvoke({"messages": [HumanMessage(TEXT)]})):
        assert [message.text for message in state["messages"]] == [TEXT, "No."]
    assert embedded_engine.stats().submitted == submitted + 2, "only decisions"


async def test_a_guard_lets_pass(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    own = guard(embedded_engine, check="both")
    yes = own.classifier.decide(TEXT)["asked"].probabilities["yes"]
    stricter = guard(embedded_engine, threshold=min(1.0, yes + 1e-6))
    state = ask(create_agent(chat, middleware=[stricter]))
    assert len(state["messages"]) == 2
    assert state["messages"][-1].response_metadata["model_name"] == chat.model
    stopped = await create_agent(chat, middleware=[guard(embedded_engine, threshold=yes)]).ainvoke(
        {"messages": [HumanMessage(TEXT)]}
    )
    assert stopped["messages"][-1].text == "I cannot help with that."


async def test_a_guard_takes_the_answers_place(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    settings: dict[str, Any] = {"check": "output", "threshold": 0, "message": "No."}
    agent = create_agent(chat, middleware=[guard(embedded_engine, **settings)])
    for state in (ask(agent), await agent.ainvoke({"messages": [HumanMessage(TEXT)]})):
        assert [message.text for message in state["messages"]] == [TEXT, "No."]
    structured = create_agent(chat, response_format=Year, middleware=[guard(embedded_engine, **settings)])
    state = ask(structured)
    assert state["structured_response"] is None
    assert state["messages"][-1].text == "No."


async def test_a_guard_may_raise(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    agent = create_agent(chat, middleware=[guard(embedded_engine, threshold=0, on_violation="raise")])
    with pytest.raises(GuardViolationError, match="the input was stopped") as caught:
        ask(agent)
    with pytest.raises(GuardViolationError):
        await agent.ainvoke({"messages": [HumanMessage(TEXT)]})
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.question, again.probability, again.checked) == (QUESTION, caught.value.probability, "input")


def test_several_guards_have_names(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    first = guard(embedded_engine, name="first", threshold=1.0)
    second = guard(embedded_engine, name="second", threshold=0, message="second")
    state = ask(create_agent(chat, middleware=[first, second]))
    assert state["messages"][-1].text in ("second", "I cannot help with that.")


async def test_a_router_chooses_tools(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    routes = {
        "weights": Route("asks how heavy something is", tools=["get_weight"]),
        "owners": Route("asks who owns something", tools=["get_owner"]),
    }
    router = DiffusionGemmaRouter(routes, engine=embedded_engine)
    question = "What is the weight of Halur?"
    chosen = router.classifier.decide(question)["asked"].value
    (name,) = routes[str(chosen)].tools or ()
    agent = create_agent(chat, tools=[get_weight, get_owner], middleware=[router])
    sync_state = agent.invoke({"messages": [HumanMessage(question)]}, {"recursion_limit": 12})
    async_state = await agent.ainvoke({"messages": [HumanMessage(question)]}, {"recursion_limit": 12})
    for state in (sync_state, async_state):
        calls = [call["name"] for message in state["messages"] if isinstance(message, AIMessage)
                 for call in message.tool_calls]  # fmt: skip
        assert calls
        assert set(calls) == {name}


def test_a_router_chooses_models(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    one = chat.model_copy(update={"stop": ["e"]})
    other = chat.model_copy(update={"max_tokens": 1})
    routes = {"one": Route("speaks of a bridge", model=one), "other": Route("speaks of a tower", model=other)}
    router = DiffusionGemmaRouter(routes, engine=embedded_engine)
    chosen = {"one": one, "other": other}[str(router.classifier.decide(TEXT)["asked"].value)]
    state = ask(create_agent(chat, middleware=[router]))
    assert state["messages"][-1].text == chosen.invoke([HumanMessage(TEXT)]).text != chat.invoke(TEXT).text


def test_a_router_that_is_not_sure(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    routes = {"one": Route("speaks of a bridge"), "other": Route("speaks of a tower"),
              "rest": Route("anything else", model=chat.model_copy(update={"max_tokens": 1}))}  # fmt: skip
    plain = ask(create_agent(chat))["messages"][-1].text
    unsure = DiffusionGemmaRouter(routes, engine=embedded_engine, min_confidence=1.0)
    assert ask(create_agent(chat, middleware=[unsure]))["messages"][-1].text == plain
    fallen = DiffusionGemmaRouter(routes, engine=embedded_engine, min_confidence=1.0, fallback="rest")
    last = ask(create_agent(chat, middleware=[fallen]))["messages"][-1]
    assert last.usage_metadata["output_tokens"] == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DiffusionGemmaRouter({"a": Route("x"), "b": "y"}), r"routes\['b'\]='y'"),  # type: ignore[dict-item]
        (lambda: DiffusionGemmaRouter({"a": Route("x")}), "2 to 26"),
        (lambda: DiffusionGemmaRouter({"a": Route("x"), "b": Route("y")}, fallback="c"), "fallback='c'"),
        (lambda: DiffusionGemmaRouter({"a": Route("x"), "b": Route("y")}, min_confidence=2), "min_confidence=2"),
        (lambda: DiffusionGemmaRouter({"a": Route("x"), "b": Route("y")}, drws=1), "'drws'"),
        (lambda: DiffusionGemmaGuard("x?", check="all"), "check='all'"),  # type: ignore[arg-type]
        (lambda: DiffusionGemmaGuard("x?", on_violation="stop"), "on_violation='stop'"),  # type: ignore[arg-type]
        (lambda: DiffusionGemmaGuard("x?", threshold=-1), "threshold=-1"),
        (lambda: DiffusionGemmaGuard(" "), "needs words"),
    ],
)
def test_bad_settings_are_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_route_to_a_tool_the_agent_lacks(embedded_engine: Engine, chat: ChatDiffusionGemma) -> None:
    routes = {"a": Route("x", tools=["fly"]), "b": Route("y", tools=["fly"])}
    router = DiffusionGemmaRouter(routes, engine=embedded_engine)
    with pytest.raises(ValueError, match="no tool 'fly', only get_weight"):
        ask(create_agent(chat, tools=[get_weight], middleware=[router]))


def test_without_langchain_the_remedy_is_named(repository: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = {[str(repository / 'core'), str(repository)]!r}\n"
        "sys.modules['langchain'] = None\n"
        "import dgemma_integrations.langchain\n"
        "import dgemma_integrations.langchain.middleware\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "ImportError: dgemma_integrations.langchain.middleware needs the package langchain" in done.stderr


def test_a_picture_without_words_is_looked_at(embedded_engine: Engine, chat: ChatDiffusionGemma, png: bytes) -> None:
    picture = {"type": "image", "base64": base64.b64encode(png).decode(), "mime_type": "image/png"}
    guard = DiffusionGemmaGuard("Is this a picture?", engine=embedded_engine, threshold=0.0)
    agent = create_agent(chat, middleware=[guard])
    asked = HumanMessage(content=[picture])  # type: ignore[list-item]
    assert agent.invoke({"messages": [asked]})["messages"][-1].text == guard.message
