"""The fields of LlamaIndex's LLM class with which users write prompts themselves.

They mean what they mean for LlamaIndex's other local models: ``query_wrapper_prompt`` wraps the text of a completion,
``completion_to_prompt`` and ``messages_to_prompt`` write a whole prompt with the chat template's markup, and
``system_prompt`` comes first in all other prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import default_completion_to_prompt
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from pydantic import field_validator

from dgemma_core.errors import DGemmaError


class OwnPrompts(FunctionCallingLLM):
    """Applies these fields to the prompts of every endpoint."""

    @field_validator("query_wrapper_prompt", mode="before")
    @classmethod
    def _template(cls, value: Any) -> Any:
        template = PromptTemplate(value) if isinstance(value, str) else value
        if isinstance(template, BasePromptTemplate) and "query_str" not in template.template_vars:
            raise ValueError(f"query_wrapper_prompt={value!r}: must contain {{query_str}}")
        return template

    @property
    def _writes_completions(self) -> bool:
        return self.completion_to_prompt not in (None, default_completion_to_prompt)

    @property
    def _writes_conversations(self) -> bool:
        return self.messages_to_prompt not in (None, generic_messages_to_prompt)

    def _extend_messages(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        """A filled prompt template's messages, with the system prompt before them and the last question wrapped."""
        return self._with_system(self._wrapped_last(messages))

    def _own_completion(self, prompt: str, arguments: Mapping[str, Any]) -> str | list[ChatMessage]:
        """The prompt of a completion: a text with markup if ``completion_to_prompt`` writes it, else a conversation."""
        text = self._wrapped(prompt)
        if not self._writes_completions:
            return self._with_system([ChatMessage(role=MessageRole.USER, content=text)])
        self._check_markup("completion_to_prompt", arguments)
        return _text("completion_to_prompt", self.completion_to_prompt(text))  # type: ignore[misc]

    def _own_conversation(
        self, messages: Sequence[ChatMessage], arguments: Mapping[str, Any]
    ) -> str | list[ChatMessage]:
        """The prompt of a chat: a text with markup if ``messages_to_prompt`` writes it, else a conversation."""
        for message in messages:
            if not isinstance(message, ChatMessage):
                raise ValueError(
                    f"messages hold {message!r}: must be a ChatMessage, such as ChatMessage(role='user', content='...')"
                )
        extended = self._with_system(messages)
        if not self._writes_conversations:
            return extended
        self._check_markup("messages_to_prompt", arguments)
        if any(isinstance(block, ImageBlock) for message in extended for block in message.blocks):
            # Not a ValueError: response synthesizers swallow those.
            raise NotImplementedError("messages_to_prompt writes a text, which has no place for images; leave it out")
        return _text("messages_to_prompt", self.messages_to_prompt(extended))  # type: ignore[misc]

    def _check_markup(self, field: str, arguments: Mapping[str, Any]) -> None:
        given = {"thinking": getattr(self, "thinking", False)} | {n: v for n, v in arguments.items() if v is not None}
        for name in ("tools", "thinking"):
            if given.get(name):
                raise ValueError(
                    f"{name}: {field} writes the whole prompt and has no place for it; leave out {field}, or {name}"
                )

    def _with_system(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        # LlamaIndex's own predict and programs have put it there already.
        first = messages[0] if messages else None
        if not self.system_prompt or (
            first is not None and first.role == MessageRole.SYSTEM and first.content == self.system_prompt
        ):
            return list(messages)
        return [ChatMessage(role=MessageRole.SYSTEM, content=self.system_prompt), *messages]

    def _wrapped(self, text: str) -> str:
        wrapper = self.query_wrapper_prompt
        return text if wrapper is None else wrapper.format(query_str=text)

    def _wrapped_last(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The messages with the last text of a last user message wrapped."""
        messages = list(messages)
        if self.query_wrapper_prompt is None or not messages or messages[-1].role != MessageRole.USER:
            return messages
        last, blocks = messages[-1], list(messages[-1].blocks)
        place = next((i for i in reversed(range(len(blocks))) if isinstance(blocks[i], TextBlock)), None)
        if place is None:
            return messages
        blocks[place] = TextBlock(text=self._wrapped(blocks[place].text))  # type: ignore[union-attr]
        wrapped = ChatMessage(role=last.role, blocks=blocks, additional_kwargs=last.additional_kwargs)
        return [*messages[:-1], wrapped]


def _text(field: str, written: object) -> str:
    if not isinstance(written, str) or not written:
        # Not a ValueError: response synthesizers swallow those.
        raise DGemmaError(f"{field} returned {written!r}: it must return the whole prompt as a text")
    return written
