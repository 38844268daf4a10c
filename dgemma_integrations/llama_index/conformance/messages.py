"""The shapes of conversation that core sends, and content blocks."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import LLM

from .base import ConformanceBase, needs
from .calls import usage_of, usage_or_skip
from .shapes import SHAPES, png

each_shape = pytest.mark.parametrize("shape", list(SHAPES))


class MessageTests(ConformanceBase):
    """Conversations as core's engines and agents write them."""

    @needs("_is_chat_model")
    @each_shape
    def test_shape_is_answered(self, llm: LLM, shape: str) -> None:
        """Fails: the component that sends this shape (named in ``SHAPES``) cannot be used. Some LLMs insist that roles
        alternate, that a system message comes first, or that content is not None.
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
        """Fails: the model never sees a part of the conversation, like a tool call, a tool result, or a system message
        that is not the first. The test looks at the prompt tokens, which must grow with each message.
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
        send ``ImageBlock`` to any chat model. An LLM that takes no images must raise an error.
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
        """Fails: as above, for ``additional_kwargs["images"]``, which core itself turns into ``ImageBlock``."""
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
