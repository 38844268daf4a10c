"""What LangChain's models take, in one of two forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue


def text_or_messages(given: Any) -> str | list[BaseMessage]:
    """A text, or messages.

    Raises:
        ValueError: neither text nor messages.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, StringPromptValue | BaseMessage):
        return given.text
    if isinstance(given, PromptValue):
        return given.to_messages()
    if isinstance(given, Sequence):
        return convert_to_messages(given)
    raise ValueError(f"input of type {type(given).__name__}: must be a text, messages or a prompt value")
