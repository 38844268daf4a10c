"""Keeps a text of the causal mode within a grammar, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from dgemma_core.denoise.causal_guide import GuidedDraft, Taken
from dgemma_core.structured.grammar_cursor import GrammarCursor


class CausalGrammar:
    """A :class:`~dgemma_core.denoise.causal_guide.CausalGuide` for a :class:`GrammarCursor`.

    The grammar masks every prediction. What it forces is written without a prediction. A token after which no ending
    fits the room is replaced by the likeliest one that leaves room for an ending.

    Args:
        cursor: the grammar, at its beginning.
    """

    def __init__(self, cursor: GrammarCursor) -> None:
        self._cursor = cursor

    @property
    def cut(self) -> bool:
        """Whether the text is another one than with more room."""
        return self._cursor.shortened

    def begin(self) -> Taken:
        """The tokens that the grammar forces at the beginning."""
        forced = self._cursor.take_forced(self._cursor.room)
        return Taken(tuple(forced), as_predicted=False, ended=self._cursor.complete)

    def walk(self, draft: Sequence[int], limit: int) -> GuidedDraft:
        """Fit a draft to the grammar, with at most ``limit`` tokens. Changes nothing."""
        walk = self._cursor.walk(draft, limit)
        return GuidedDraft(tuple(walk.tokens), torch.from_numpy(np.stack(walk.allowed)), tuple(walk.forced))

    def take(self, token: int, logits: Callable[[], Tensor]) -> Taken:
        """Take a predicted token, and those that the grammar forces after it."""
        cursor = self._cursor
        tokens, _ = cursor.take([token])
        as_predicted = bool(tokens)
        if not tokens:
            tokens, _ = cursor.repair(logits(), cursor.room)
        if not tokens:
            return Taken((), as_predicted=False, ended=True)
        if not cursor.complete:
            tokens += cursor.take_forced(cursor.room)
        return Taken(tuple(tokens), as_predicted, cursor.complete)
