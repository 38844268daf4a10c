"""The last message of the user."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage


def last_said(messages: Sequence[AnyMessage]) -> str | list[BaseMessage]:
    """The last user message: its text, or the message if it holds more than text. An empty text if there is none."""
    last = next((message for message in reversed(messages) if isinstance(message, HumanMessage)), None)
    if last is None:
        return ""
    parts = [last.content] if isinstance(last.content, str) else last.content
    if all(isinstance(part, str) or part.get("type") == "text" for part in parts):
        return last.text.strip()
    return [last]
