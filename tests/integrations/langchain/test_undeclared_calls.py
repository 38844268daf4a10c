"""A model without tools answers in words, even if the history holds calls of another one."""

from __future__ import annotations

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage

from dgemma_core import Engine
from dgemma_integrations.langchain import ChatDiffusionGemma

HISTORY: list[BaseMessage] = [
    HumanMessage("What is the weather in Zonel?"),
    AIMessage("", tool_calls=[{"name": "get_weather", "args": {"city": "Zonel"}, "id": "1"}]),
    ToolMessage("It rains in Zonel, 12 degrees.", tool_call_id="1"),
    HumanMessage("and?"),
]


async def test_a_question_after_a_call_is_answered_in_words(embedded_engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=embedded_engine, seed=0, max_tokens=32, canvas_length=32, max_denoising_steps=20)
    answer = chat.invoke(HISTORY)
    assert answer.text
    assert not answer.tool_calls
    assert answer.response_metadata["finish_reason"] != "tool_calls"
    chunks = list(chat.stream(HISTORY)) + [chunk async for chunk in chat.astream(HISTORY)]
    assert not any(isinstance(chunk, AIMessageChunk) and chunk.tool_call_chunks for chunk in chunks)
    assert "".join(chunk.text for chunk in chunks) == 2 * answer.text
