"""Shared beginnings within one step: one sequence encodes them, and the others copy them in the same pass.

Many requests over one context (a decision's canvases, an evaluation, questions about a document) arrive together. The
prefix cache does not help them, because it gets the context only after the step.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from dgemma_core.engine.prefixes import common_prefix
from dgemma_core.engine.sequence import Sequence

# Tokens. A copy of any length costs a few small kernels per layer; encoding fewer tokens than this is as fast.
SHORTEST_LOAN = 32


@dataclass(frozen=True)
class Loan:
    """The beginning of a sequence's pending tokens, which another sequence of the same pass encodes.

    Attributes:
        lender: the other sequence; its keys and values are copied layer by layer.
        length: pending tokens that the borrower copies instead of encoding them.
    """

    lender: Sequence
    length: int


class Lenders:
    """The sequences of a step so far, and the tokens that each will have encoded after it."""

    def __init__(self) -> None:
        # Sorted, because the longest common prefix is then with a neighbour.
        self._known: list[tuple[tuple[int, ...], int]] = []
        self._sequences: list[Sequence] = []

    def add(self, sequence: Sequence, encoded: int) -> None:
        """Add a sequence that takes part in the step and will have ``encoded`` positions encoded after it."""
        insort(self._known, (tuple(sequence.identities[:encoded]), len(self._sequences)))
        self._sequences.append(sequence)

    def find(self, sequence: Sequence) -> Loan | None:
        """The longest loan for a sequence in prefill. None if it is shorter than ``SHORTEST_LOAN``."""
        if not sequence.prefilling or sequence.pending < SHORTEST_LOAN:
            return None
        wanted = tuple(sequence.identities)
        place = bisect_left(self._known, (wanted, 0))
        best = max(
            ((common_prefix(known, wanted), number) for known, number in self._known[max(0, place - 1) : place + 1]),
            default=(0, 0),
        )
        length = best[0] - (len(wanted) - sequence.pending)
        if sequence.writer is not None:
            # It encodes the prompt's last token and what follows itself: it predicts after them, and whoever has
            # encoded the prompt begins to draft.
            length = min(length, sequence.prompt_length - 1 - sequence.committed)
        return Loan(self._sequences[best[1]], length) if length >= SHORTEST_LOAN else None
