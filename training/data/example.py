"""The form of every task's examples: branches that may share a beginning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dgemma_core.api.questions import Question

Message = dict[str, Any]
Typed = tuple[Question, str]  # the question and the name of the right option
TASKS = ("qa", "abstain", "lists", "tools", "decisions", "json", "infill")
CHAT_TASKS = TASKS[:-1]  # Blanks are filled in plain text.
ABSTAIN = "The context does not say."


@dataclass(frozen=True)
class Branch:
    """One supervised turn.

    `calls` (OpenAI form) replace `answer` where the right turn is a tool call, `asked` where typed questions are
    answered. The questions stand in the answer or, if `spelled_out`, in the prompt. `holes` are character spans of the
    answer that have to be found; the rest of it may be given. With `raw` the prompt is that text instead of chat
    messages, and `room` padding tokens follow the first hole.
    """

    task: str
    messages: list[Message]
    answer: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    holes: tuple[tuple[int, int], ...] = ()
    raw: str | None = None
    room: int = 0
    asked: tuple[Typed, ...] = ()
    spelled_out: bool = False
