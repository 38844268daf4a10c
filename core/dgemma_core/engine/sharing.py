"""Sequences of one step whose prompts begin alike: what one of them encodes, the others take over in the same pass.

A batch over one context (a typed decision's canvases, an evaluation, many questions about a document) arrives at once,
before the first of its prompts is in the prefix cache.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from dgemma_core.engine.prefixes import common_prefix
from dgemma_core.engine.sequence import Sequence

# Copying costs a few small kernels a layer, whatever the length: below this, encoding is as fast.
SHORTEST_LOAN = 32


@dataclass(frozen=True)
class Loan:
    """The beginning of a sequence's pending tokens, as another sequence has it once the same pass has written it.

    Attributes:
        lender: whose keys and values are copied, layer by layer.
        length: pending tokens of the borrower that need no encoding of their own.
    """

    lender: Sequence
    length: int


class Lenders:
    """The sequences that a step has taken in so far, and what each will have encoded after it."""

    def __init__(self) -> None:
        self._known: list[tuple[tuple[int, ...], int]] = []  # Sorted: the longest common prefix is with a neighbour.
        self._sequences: list[Sequence] = []

    def add(self, sequence: Sequence, encoded: int) -> None:
        """``sequence`` takes part in the step and has ``encoded`` positions after it."""
        insort(self._known, (tuple(sequence.identities[:encoded]), len(self._sequences)))
        self._sequences.append(sequence)

    def find(self, sequence: Sequence) -> Loan | None:
        """The longest loan for a sequence whose prompt is not encoded yet, if one is worth it."""
        if not sequence.prefilling or sequence.pending < SHORTEST_LOAN:
            return None
        wanted = tuple(sequence.identities)
        place = bisect_left(self._known, (wanted, 0))
        best = max(
            ((common_prefix(known, wanted), number) for known, number in self._known[max(0, place - 1) : place + 1]),
            default=(0, 0),
        )
        length = best[0] - (len(wanted) - sequence.pending)
        return Loan(self._sequences[best[1]], length) if length >= SHORTEST_LOAN else None
