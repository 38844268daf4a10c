"""Chat messages as the engine takes them. Adapters translate their framework's messages to these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dgemma_core.api.images import Image
from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.surrogates import without_surrogates

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class ToolCall(JsonForm):
    """A tool call of the assistant. Halves of surrogate pairs in its texts become U+FFFD.

    Args:
        name: the tool's name.
        arguments: JSON values by parameter name.
        id: matches the ``tool_call_id`` of the tool message with the result.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "arguments", "id"):
            object.__setattr__(self, name, without_surrogates(getattr(self, name)))


@dataclass(frozen=True)
class Message(JsonForm):
    """One chat message.

    Args:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: text, or a list of texts and images in the order the model sees them. A list is kept as a tuple; a
            list of texts alone becomes one string. Control tokens typed in it stay text. Halves of surrogate pairs
            become U+FFFD.
        tool_calls: calls of an assistant message.
        tool_call_id: id of the call that a ``tool`` message answers.
        name: the tool's name, for a ``tool`` message whose call is not in the history.

    Raises:
        ValueError: on an unknown role, or content that is neither text nor an image.
    """

    role: Role
    content: str | Sequence[str | Image] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r}: must be one of {', '.join(ROLES)}")
        content = "" if self.content is None else self.content
        if not isinstance(content, str):
            content = _parts(content)
        object.__setattr__(self, "content", without_surrogates(content))
        object.__setattr__(self, "tool_call_id", without_surrogates(self.tool_call_id))
        object.__setattr__(self, "name", without_surrogates(self.name))
        object.__setattr__(self, "tool_calls", tuple(self.tool_calls))

    @property
    def parts(self) -> tuple[str | Image, ...]:
        """The content as texts and images, in order."""
        return (self.content,) if isinstance(self.content, str) else tuple(self.content)

    @property
    def text(self) -> str:
        """The content's texts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[Image, ...]:
        """The content's images, in order."""
        return () if isinstance(self.content, str) else tuple(p for p in self.content if isinstance(p, Image))


def _parts(content: Any) -> str | tuple[str | Image, ...]:
    """The content with neighbouring texts joined and empty texts left out; a string if there is no image."""
    if not isinstance(content, list | tuple):
        raise ValueError(f"content={content!r}: must be a string, or a list of strings and Image")
    parts: list[str | Image] = []
    for part in content:
        if not isinstance(part, str | Image):
            raise ValueError(f"content holds {part!r}: must be a string or an Image (Image.of makes one)")
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        elif part != "":
            parts.append(part)
    if not any(isinstance(part, Image) for part in parts):
        return "".join(part for part in parts if isinstance(part, str))
    return tuple(parts)
