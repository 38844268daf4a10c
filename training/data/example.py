"""What every task produces: branches that may share a beginning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
TASKS = ("qa", "abstain", "lists", "tools", "decisions", "json")
ABSTAIN = "The context does not say."


@dataclass(frozen=True)
class Branch:
    """One supervised turn. `calls` (OpenAI form) replace `answer` when the right turn is a tool call."""

    task: str
    messages: list[Message]
    answer: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
