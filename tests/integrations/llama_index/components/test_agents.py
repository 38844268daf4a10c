"""Agents that work through the prompt."""

from __future__ import annotations

from llama_index.core.agent.workflow import AgentStream, ReActAgent
from llama_index.core.tools import FunctionTool

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import MARKS, QUESTION, WatchedEngine

pytestmark = MARKS


async def test_react_agent(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    def opened(name: str) -> str:
        """When something was opened."""
        return f"{name} was opened in 1978."

    agent = ReActAgent(tools=[FunctionTool.from_defaults(opened)], llm=llm, streaming=True)
    handler = agent.run(QUESTION, max_iterations=1, early_stopping_method="generate")
    deltas = [event.delta async for event in handler.stream_events() if isinstance(event, AgentStream)]
    output = await handler
    assert output.response.role.value == "assistant"
    assert deltas
    assert engine.most_open == 1
