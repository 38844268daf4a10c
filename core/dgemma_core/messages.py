"""Chat messages as the engine takes them; adapters translate their framework's messages to these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class ToolCall:
    """A call the assistant made, kept for the history.

    Args:
        name: the tool's name.
        arguments: its arguments, JSON values.
        id: matches the ``tool_call_id`` of the tool message with the result.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One chat message.

    Args:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: plain text. Control tokens typed in it stay text.
        tool_calls: calls an assistant message made.
        tool_call_id: for ``tool`` messages: which call this answers.
        name: for ``tool`` messages: the tool's name, where no call with that id is in the history.

    Raises:
        ValueError: on an unknown role or content that is not a string.
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r}: must be one of {', '.join(ROLES)}")
        if self.content is None:
            object.__setattr__(self, "content", "")
        if not isinstance(self.content, str):
            raise ValueError(f"content={self.content!r}: must be a string")
        object.__setattr__(self, "tool_calls", tuple(self.tool_calls))
