"""The interface of guides of the causal mode: a grammar that says which token may come next.

A guide of this kind knows the grammar's state after the text so far. Before a pass it walks through a draft; after the
pass it takes the tokens that were predicted, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class GuidedDraft:
    """A draft that fits the grammar.

    Attributes:
        tokens: the draft, cut before its first token that does not fit.
        allowed: bool ``[len(tokens) + 1, vocab]``, the tokens that may come before each token of the draft, and after
            the last.
        forced: per row of ``allowed`` the only token that may come there, or None where there is a choice.
    """

    tokens: tuple[int, ...]
    allowed: Tensor
    forced: tuple[int | None, ...]


@dataclass(frozen=True)
class Taken:
    """What became of a predicted token.

    Attributes:
        tokens: that follow the text now: the token and those that the grammar forces after it. Other tokens if the
            predicted one would have left no room for an ending.
        as_predicted: whether the predicted token is the first of ``tokens``.
        ended: whether the text ends after ``tokens``.
    """

    tokens: tuple[int, ...]
    as_predicted: bool
    ended: bool


class CausalGuide(Protocol):
    """Keeps the text of one request within a grammar."""

    @property
    def cut(self) -> bool:
        """Whether the text would have gone on if it had had more room."""

    def begin(self) -> Taken:
        """The tokens that the grammar forces at the beginning."""

    def walk(self, draft: Sequence[int], limit: int) -> GuidedDraft:
        """Fit a draft to the grammar, with at most ``limit`` tokens. Changes nothing."""

    def take(self, token: int, logits: Callable[[], Tensor]) -> Taken:
        """Take a predicted token.

        Args:
            token: one of the allowed tokens.
            logits: float32 ``[vocab]`` on the host, of the distribution that the token is from; called only if another
                token is needed.
        """
