"""An LLM without tools answers in words, even if the history holds calls."""

from __future__ import annotations

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock

from dgemma_integrations.llama_index import DiffusionGemma

HISTORY = [
    ChatMessage(role=MessageRole.USER, content="What is the weather in Zonel?"),
    ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[ToolCallBlock(tool_call_id="1", tool_name="get_weather", tool_kwargs={"city": "Zonel"})],
    ),
    ChatMessage(
        role=MessageRole.TOOL, content="It rains in Zonel, 12 degrees.", additional_kwargs={"tool_call_id": "1"}
    ),
    ChatMessage(role=MessageRole.USER, content="and?"),
]


async def test_a_question_after_a_call_is_answered_in_words(llm: DiffusionGemma) -> None:
    llm = llm.model_copy(update={"canvas_length": 32, "max_denoising_steps": 20, "seed": 0})
    answer = llm.chat(HISTORY)
    assert [type(block) for block in answer.message.blocks] == [TextBlock]
    assert answer.message.content
    assert not llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    *_, last = llm.stream_chat(HISTORY)
    *_, alast = [chunk async for chunk in await llm.astream_chat(HISTORY)]
    assert [last.message.content, alast.message.content] == 2 * [answer.message.content]
