"""LlamaIndex messages to the engine's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from dgemma_core import Engine, Message, ToolCall
from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.llama_index.messages import to_engine_messages


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("system", "system"),
        ("developer", "system"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("chatbot", "assistant"),
        ("model", "assistant"),
        ("tool", "tool"),
        ("function", "tool"),
    ],
)
def test_roles(given: str, expected: str) -> None:
    (message,) = to_engine_messages([ChatMessage(role=given, content="text")])
    assert (message.role, message.content) == (expected, "text")


def test_every_role_of_llama_index_is_known() -> None:
    assert len(to_engine_messages([ChatMessage(role=role, content="x") for role in MessageRole])) == len(MessageRole)


def test_order_and_number_are_kept() -> None:
    chat = [
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="one"),
        ChatMessage(role="user", content="two"),
        ChatMessage(role="system", content="Write the final answer now."),
    ]
    assert [(m.role, m.content) for m in to_engine_messages(chat)] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("user", "two"),
        ("system", "Write the final answer now."),
    ]


def test_text_blocks_are_joined_as_content_joins_them() -> None:
    message = ChatMessage(role="user", blocks=[TextBlock(text="a"), TextBlock(text="b")])
    assert to_engine_messages([message])[0].content == message.content == "a\nb"


def test_thoughts_and_cache_hints_stay_out() -> None:
    blocks = [ThinkingBlock(content="hm"), TextBlock(text="yes"), CachePoint(cache_control={"type": "ephemeral"})]
    assert to_engine_messages([ChatMessage(role="assistant", blocks=blocks)]) == [Message("assistant", "yes")]


def test_a_function_agents_turns() -> None:
    chat = [
        ChatMessage(role="user", content="Weather in Kerl and Tolm?"),
        ChatMessage(
            role="assistant",
            blocks=[
                TextBlock(text="Looking."),
                ToolCallBlock(tool_call_id="1", tool_name="weather", tool_kwargs={"city": "Kerl"}),
                ToolCallBlock(tool_call_id="2", tool_name="weather", tool_kwargs='{"city": "Tolm"}'),
            ],
            # Integrations keep them here as well; they must not appear twice.
            additional_kwargs={"tool_calls": [{"id": "1", "function": {"name": "weather", "arguments": "{}"}}]},
        ),
        ChatMessage(role="tool", content="Rain", additional_kwargs={"tool_call_id": "1"}),
        ChatMessage(role="tool", content="Sun", additional_kwargs={"tool_call_id": "2", "name": "weather"}),
    ]
    assert to_engine_messages(chat)[1:] == [
        Message(
            "assistant",
            "Looking.",
            tool_calls=(ToolCall("weather", {"city": "Kerl"}, "1"), ToolCall("weather", {"city": "Tolm"}, "2")),
        ),
        Message("tool", "Rain", tool_call_id="1"),
        Message("tool", "Sun", tool_call_id="2", name="weather"),
    ]


def test_tool_calls_in_additional_kwargs() -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        SimpleNamespace(id="2", function=SimpleNamespace(name="now", arguments="")),
        {"id": "3", "name": "add", "arguments": {"a": 2}},
        {"id": "4", "function": {"name": "add", "arguments": "{broken"}},
    ]
    (message,) = to_engine_messages([ChatMessage(role="assistant", additional_kwargs={"tool_calls": calls})])
    assert message.content == ""
    assert message.tool_calls == (
        ToolCall("add", {"a": 1}, "1"),
        ToolCall("now", {}, "2"),
        ToolCall("add", {"a": 2}, "3"),
        ToolCall("add", {"arguments": "{broken"}, "4"),
    )


@pytest.mark.parametrize(
    ("block", "name"),
    [
        (AudioBlock(audio=b"RIFF"), "AudioBlock.*'audio'"),
        (VideoBlock(video=b"\x00"), "VideoBlock.*'video'"),
        (DocumentBlock(data=b"%PDF"), "DocumentBlock.*'document'"),
        (CitableBlock(title="t", source="s", content="c"), "CitableBlock.*'citable'"),
        (ToolCallBlock(tool_name="x"), "ToolCallBlock.*'tool_call'"),
    ],
)
def test_other_blocks_are_refused_by_name(block: object, name: str) -> None:
    with pytest.raises(NotImplementedError, match=name + ".*user message"):
        to_engine_messages([ChatMessage(role="user", blocks=[TextBlock(text="look"), block])])


def test_refusal_reaches_the_caller_of_an_endpoint(llm: DiffusionGemma) -> None:
    with pytest.raises(NotImplementedError, match="AudioBlock"):
        llm.stream_chat([ChatMessage(role="user", blocks=[AudioBlock(audio=b"RIFF")])])


def test_the_checkpoints_template_takes_every_shape_llama_index_sends(
    llm: DiffusionGemma, embedded_engine: Engine
) -> None:
    call = ToolCallBlock(tool_call_id="1", tool_name="weather", tool_kwargs={"city": "Kerl"})
    shapes = [
        [ChatMessage(role="user", content="a"), ChatMessage(role="user", content="b")],
        [ChatMessage(role="system", content="s"), ChatMessage(content="u"), ChatMessage(role="system", content="t")],
        [
            ChatMessage(role="system", content="s"),
            ChatMessage(content="u"),
            ChatMessage(role="assistant", blocks=[call]),
            ChatMessage(role="tool", content="Rain", additional_kwargs={"tool_call_id": "1"}),
        ],
        [ChatMessage(content="u"), ChatMessage(role="assistant", content="a"), ChatMessage(content="error: try again")],
    ]
    for shape in shapes:
        used = llm.chat(shape, max_tokens=2).raw["usage"]["prompt_tokens"]
        assert used == embedded_engine.count_tokens(to_engine_messages(shape))


def test_citations_of_an_earlier_answer_are_left_out() -> None:
    cited = CitationBlock(cited_content=TextBlock(text="c"), source="s", title="t", additional_location_info={})
    answer = ChatMessage(role="assistant", blocks=[TextBlock(text="It rains."), cited])
    assert to_engine_messages([answer]) == [Message("assistant", "It rains.")]


def test_a_prompt_of_a_wrong_type_is_named(tiny_engine: Engine) -> None:
    llm = DiffusionGemma(engine=tiny_engine)
    for prompt in (5, None, b"Hello", ["Hello"]):
        with pytest.raises(ValueError, match=r"prompt=.*must be a text"):
            llm.complete(prompt)  # type: ignore[arg-type]
    message = {"role": "user", "content": "Hello"}
    with pytest.raises(ValueError, match=r"messages hold \{'role'.*must be a ChatMessage"):
        llm.chat([message])  # type: ignore[list-item]
