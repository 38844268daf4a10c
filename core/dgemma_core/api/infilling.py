"""The holes of a text, and the filled text."""

from __future__ import annotations

from dataclasses import dataclass, field

from dgemma_core.api.events import FinishReason
from dgemma_core.api.grammar import Grammar
from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.setting_table import is_integer
from dgemma_core.api.usage import Usage


@dataclass(frozen=True)
class Hole(JsonForm):
    """A hole in a text, which ``Engine.infill`` fills.

    Args:
        max_tokens: most tokens that the filling may take.
        grammar: the filling always fits it; None leaves the filling free.

    Raises:
        ValueError: naming the field and its value.
    """

    max_tokens: int = 16
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_tokens", plain(self.max_tokens))
        if not is_integer(self.max_tokens) or self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens!r}: must be an integer of at least 1")
        if self.grammar is not None and not isinstance(self.grammar, Grammar):
            raise ValueError(f"grammar={self.grammar!r}: must be a Grammar, such as Grammar.regex(...)")


@dataclass(frozen=True)
class Infilled(JsonForm):
    """A filled text.

    Attributes:
        text: fixed pieces and fillings, joined.
        holes: the fillings, in order.
        usage: what the request cost.
        finish_reasons: one per filling. ``length``: it lacks something for want of room, or it fills its room and
            nothing says that it ends there. ``cancelled``: the request was cancelled. Else ``stop``.
    """

    text: str
    holes: list[str]
    usage: Usage
    finish_reasons: list[FinishReason] = field(default_factory=list)
