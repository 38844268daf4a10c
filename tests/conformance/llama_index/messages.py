"""The shapes of conversation that core really sends, and content blocks."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import LLM

from .base import ConformanceBase, needs, png, usage_of, usage_or_skip


def _call(name: str, number: int, **arguments: Any) -> ToolCallBlock:
    return ToolCallBlock(tool_call_id=f"call_{number}", tool_name=name, tool_kwargs=arguments)


def _message(role: str, content: str | list[Any], **extra: Any) -> ChatMessage:
    if isinstance(content, str):
        return ChatMessage(role=role, content=content, additional_kwargs=extra)
    return ChatMessage(role=role, blocks=content, additional_kwargs=extra)


_CALLS = [
    _message("system", "Use tools."),
    _message("user", "Add 2 and 3, and 4 and 5."),
    _message("assistant", [_call("add", 1, a=2, b=3), _call("add", 2, a=4, b=5)]),
    _message("tool", "5", tool_call_id="call_1"),
    _message("tool", "9", tool_call_id="call_2"),
]

SHAPES: dict[str, tuple[str, list[ChatMessage]]] = {
    "one_user": ("everything", [_message("user", "Name a river.")]),
    "system_first": ("chat engines", [_message("system", "Be brief."), _message("user", "Name a river.")]),
    "dialogue": (
        "chat engines with memory",
        [_message("user", "Name a river."), _message("assistant", "Toln."), _message("user", "Name another.")],
    ),
    "consecutive_users": (
        "DocumentContextExtractor, ReAct retries",
        [_message("user", "The Toln is a river."), _message("user", "Name a river.")],
    ),
    "system_last": (
        'agents with early_stopping_method="generate"',
        [_message("system", "Be brief."), _message("user", "Name a river."), _message("system", "Answer now.")],
    ),
    "only_system": ("prompts that are all instruction", [_message("system", "Name a river.")]),
    "assistant_last": (
        "ReActAgent after a tool that returns directly",
        [_message("user", "Name a river."), _message("assistant", "The Toln")],
    ),
    "two_assistants": (
        "memory after a retry",
        [
            _message("user", "Hello."),
            _message("assistant", "Hi."),
            _message("assistant", "Ask."),
            _message("user", "?"),
        ],
    ),
    "assistant_without_text": ("FunctionAgent's second turn: content is None", _CALLS),
    "tool_call_as_json_text": (
        "tool calls of integrations that keep the arguments as text",
        [
            _message("user", "Add 2 and 3."),
            _message(
                "assistant",
                [ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs='{"a": 2, "b": 3}')],
            ),
            _message("tool", "5", tool_call_id="call_1"),
        ],
    ),
    "empty_tool_result": (
        "FunctionAgent with a tool that returns nothing",
        [
            _message("user", "Ring the bell."),
            _message("assistant", [TextBlock(text="I ring it."), _call("ring", 1)]),
            _message("tool", "", tool_call_id="call_1"),
        ],
    ),
    "two_text_blocks": (
        "multimodal synthesizers",
        [_message("user", [TextBlock(text="The Toln is a river."), TextBlock(text="Name it.")])],
    ),
    "thoughts_in_history": (
        "agents with a model that thinks",
        [
            _message("user", "Hello."),
            _message("assistant", [ThinkingBlock(content="A greeting."), TextBlock(text="Hi.")]),
            _message("user", "Name a river."),
        ],
    ),
}

each_shape = pytest.mark.parametrize("shape", list(SHAPES))


class MessageTests(ConformanceBase):
    """Conversations as core's engines and agents write them."""

    @needs("_is_chat_model")
    @each_shape
    def test_shape_is_answered(self, llm: LLM, shape: str) -> None:
        """Fails: the component that sends this shape (named in ``SHAPES``) cannot be used: roles must alternate, a
        system message must come first, content must not be None.
        """
        messages = [message.model_copy(deep=True) for message in SHAPES[shape][1]]
        before = [message.model_dump() for message in messages]
        response = llm.chat(messages, **self.limit(2))
        assert isinstance(response, ChatResponse), SHAPES[shape][0]
        assert response.message.role == MessageRole.ASSISTANT
        assert isinstance(response.message.content or "", str)
        assert [message.model_dump() for message in messages] == before

    @needs("_is_chat_model", "reports_usage")
    @each_shape
    def test_no_message_is_dropped(self, llm: LLM, shape: str) -> None:
        """Fails: the model never sees part of the conversation: a system message that is not the first, a tool result,
        a tool call. Told from the prompt tokens, which must grow with each message.
        """
        messages = SHAPES[shape][1]

        def tokens(conversation: list[ChatMessage]) -> int:
            return usage_or_skip(llm.chat(conversation, **self.limit(1)))[0]

        base = tokens(messages)
        for number, message in enumerate(messages):
            longer = message.model_copy(deep=True)
            for block in longer.blocks:
                if isinstance(block, TextBlock):
                    block.text += " lorem ipsum dolor sit amet"
                    break
                if isinstance(block, ToolCallBlock):
                    block.tool_kwargs = {"text": "lorem ipsum dolor sit amet with much more to say"}
                    break
            changed = [*messages[:number], longer, *messages[number + 1 :]]
            assert tokens(changed) > base, f"message {number} ({message.role.value}) is not in the prompt"

    @property
    def _is_chat_model(self) -> bool:
        return bool(self.make().metadata.is_chat_model)

    def _with_image(self) -> list[ChatMessage]:
        blocks = [TextBlock(text="What is on the picture?"), ImageBlock(image=png(), image_mimetype="image/png")]
        return [ChatMessage(role="user", blocks=blocks)]

    @pytest.mark.parametrize("endpoint", ["chat", "achat", "stream_chat", "astream_chat"])
    def test_images(self, llm: LLM, endpoint: str) -> None:
        """Fails: the model answers questions about pictures that it never saw. Multimodal synthesizers and chat engines
        send ``ImageBlock`` to any chat model; one that cannot see must say so.
        """
        if self.supports_images:
            response = self.call(llm, endpoint, self._with_image(), **self.limit(4))[-1]
            if self.reports_usage:
                without = self.call(llm, "chat", "What is on the picture?", **self.limit(4))[-1]
                assert usage_of(response)[0] > usage_of(without)[0], "the image is not in the prompt"
            return
        with pytest.raises(Exception, match=r"(?i)image"):
            self.call(llm, endpoint, self._with_image(), **self.limit(4))
        assert self.call(llm, "chat")

    def test_old_way_of_images(self, llm: LLM) -> None:
        """Fails: as above, for ``additional_kwargs["images"]``, which core turns into ``ImageBlock`` by itself."""
        message = ChatMessage(
            role="user", content="What is it?", additional_kwargs={"images": [self._with_image()[0].blocks[1]]}
        )
        if not any(isinstance(block, ImageBlock) for block in message.blocks):
            pytest.skip("this version of core does not translate it")
        if self.supports_images:
            assert llm.chat([message], **self.limit(4))
            return
        with pytest.raises(Exception, match=r"(?i)image"):
            llm.chat([message], **self.limit(4))
