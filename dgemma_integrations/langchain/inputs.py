"""Turns the inputs that LangChain's models take into a text or messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue, StringPromptValue


def text_or_messages(given: Any) -> str | list[BaseMessage]:
    """An input as a text or as messages. Of a single message the text is used.

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
