from __future__ import annotations

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from dgemma_core import Message, ToolCall
from dgemma_integrations.langchain import ChatDiffusionGemma
from dgemma_integrations.langchain.messages import to_engine_messages

CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
BROKEN_CALL = {"name": "add", "args": "{a", "id": "c1", "error": None, "type": "invalid_tool_call"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SystemMessage("s"), [Message("system", "s")]),
        (HumanMessage("h", name="Ada"), [Message("user", "h")]),
        (AIMessage("a"), [Message("assistant", "a")]),
        (ChatMessage("x", role="user"), [Message("user", "x")]),
        (ChatMessage("x", role="developer"), [Message("system", "x")]),
        (ChatMessage("x", role="model"), [Message("assistant", "x")]),
        (FunctionMessage("3", name="add"), [Message("tool", "3", name="add")]),
        (
            HumanMessage([{"type": "text", "text": "one "}, "two", {"type": "text-plain", "text": " three"}]),
            [Message("user", "one two three")],
        ),
        (SystemMessage([{"type": "text", "text": "s"}]), [Message("system", "s")]),
        (AIMessage("", tool_calls=[CALL]), [Message("assistant", "", (ToolCall("add", {"a": 1}, "c1"),))]),
        (
            AIMessage([{"type": "tool_use", "name": "add", "id": "c1", "input": {"a": 1}}]),
            [Message("assistant", "", (ToolCall("add", {"a": 1}, "c1"),))],
        ),
        (
            AIMessage([{"type": "tool_use", "name": "add", "id": "c1", "input": {"a": 1}}], tool_calls=[CALL]),
            [Message("assistant", "", (ToolCall("add", {"a": 1}, "c1"),))],
        ),
        (
            AIMessage(
                "",
                invalid_tool_calls=[
                    {"name": "add", "args": "{a", "id": "c1", "error": None, "type": "invalid_tool_call"}
                ],
            ),
            [Message("assistant", "", (ToolCall("add", {"arguments": "{a"}, "c1"),))],
        ),
        (
            AIMessage(
                [
                    {"type": "reasoning", "reasoning": "hm"},
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "non_standard", "value": {}},
                    {"type": "text", "text": "a"},
                ]
            ),
            [Message("assistant", "a")],
        ),
        (AIMessage("a", additional_kwargs={"reasoning_content": "hm"}), [Message("assistant", "a")]),
        (ToolMessage("3", tool_call_id="c1", name="add"), [Message("tool", "3", tool_call_id="c1", name="add")]),
        (
            ToolMessage([{"type": "json", "json": {"sum": 3}}], tool_call_id="c1"),
            [Message("tool", '{"sum": 3}', tool_call_id="c1")],
        ),
        (
            ToolMessage([{"type": "text", "text": "3"}], tool_call_id="c1"),
            [Message("tool", "3", tool_call_id="c1")],
        ),
        (ToolMessage("no", tool_call_id="c1", status="error"), [Message("tool", "Error: no", tool_call_id="c1")]),
        (
            ToolMessage("Error: no", tool_call_id="c1", status="error"),
            [Message("tool", "Error: no", tool_call_id="c1")],
        ),
        (
            HumanMessage(
                [{"type": "tool_result", "tool_use_id": "c1", "content": "3"}, {"type": "text", "text": "thanks"}]
            ),
            [Message("tool", "3", tool_call_id="c1"), Message("user", "thanks")],
        ),
        (HumanMessage("<turn|>"), [Message("user", "<turn|>")]),
    ],
)
def test_one_message(message: BaseMessage, expected: list[Message]) -> None:
    assert to_engine_messages([message]) == expected


def test_a_conversation_keeps_its_order_and_its_repeated_roles() -> None:
    conversation = [
        SystemMessage("a"),
        SystemMessage("b"),
        HumanMessage("c"),
        HumanMessage("d"),
        AIMessage("e", tool_calls=[CALL]),
        ToolMessage("f", tool_call_id="c1"),
        AIMessage("g"),
        AIMessage("h"),
    ]
    translated = to_engine_messages(conversation)
    assert [m.content for m in translated] == list("abcdefgh")
    assert [m.role for m in translated] == ["system"] * 2 + ["user"] * 2 + ["assistant", "tool"] + ["assistant"] * 2


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (HumanMessage([{"type": "audio", "base64": "AA", "mime_type": "audio/wav"}]), "'audio'.*text and images only"),
        (AIMessage([{"type": "input_file", "file_id": "f"}]), "'input_file'.*text and images only"),
        (ToolMessage([{"type": "video", "url": "https://host/v"}], tool_call_id="c"), "'video'.*text and images only"),
        (HumanMessage([{"type": "hologram"}]), "'hologram'"),
        (ChatMessage("x", role="judge"), "role='judge'"),
        (RemoveMessage(id="1"), "RemoveMessage"),
    ],
)
def test_what_is_neither_text_nor_an_image_is_refused(message: BaseMessage, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_engine_messages([message])


def test_the_model_answers_every_kind_of_history(chat: ChatDiffusionGemma) -> None:
    history: list[BaseMessage] = [
        SystemMessage("be brief"),
        SystemMessage("be kind"),
        HumanMessage("one"),
        HumanMessage("two"),
        AIMessage("three", tool_calls=[CALL]),
        ToolMessage("four", tool_call_id="c1"),
        AIMessage("five"),
        HumanMessage("six"),
    ]
    assert chat.invoke(history).text


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "computer_call_output",
        "server_tool_use",
        "web_search_tool_result",
        "executable_code",
        "code_execution_result",
    ],
)
def test_server_side_tools_of_another_provider_are_left_out_of_a_history(kind: str) -> None:
    blocks: list[str | dict[str, object]] = [{"type": kind, "id": "1"}, {"type": "text", "text": "It rains."}]
    assert to_engine_messages([AIMessage(blocks)]) == [Message("assistant", "It rains.")]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=kind):
        to_engine_messages([HumanMessage(blocks)])  # type: ignore[arg-type]
