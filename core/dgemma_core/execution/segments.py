"""The input of a forward pass: consecutive tokens of sequences, and copies between sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_core.execution.kv_cache import Branch, SequenceCache


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one sequence in the flat batch.

    Attributes:
        cache: the sequence's keys and values.
        start: position of the first token.
        length: tokens computed.
        causal: True in encoder mode (prompt chunk, commit), False in decoder mode (canvas).
        stop: position after the last one attended to. For a canvas it may lie after ``start + length``, because frozen
            positions are attended to, but not computed.
        blocks: ranges ``[start, stop)`` of positions that see each other in both directions, at any distance. They are
            the images of a causal segment, if the checkpoint is trained so. Each lies within the segment.
        wanted: positions of a canvas (from its start) whose last hidden states are wanted; None means all.
        predicts: last tokens of a causal segment whose last hidden states are wanted.
        shared: whether another segment of the same sequence begins at the same position. None of them sees another, and
            they stand end to end in the flat batch.
        own_place: where the keys and values are written; None for ``start``. Segments that share their positions have
            places of their own, and only those of the one at ``start`` stay.
        branch: receives the keys and values; None for a segment that leaves them in the cache.
    """

    cache: SequenceCache
    start: int
    length: int
    causal: bool
    stop: int
    blocks: tuple[tuple[int, int], ...] = ()
    wanted: tuple[int, ...] | None = None
    predicts: int = 0
    shared: bool = False
    own_place: int | None = None
    branch: Branch | None = None

    @property
    def place(self) -> int:
        """Where the keys and values are written."""
        return self.start if self.own_place is None else self.own_place

    @property
    def key_stop(self) -> int:
        """Place after the last key that is attended to."""
        return self.place + self.stop - self.start

    @property
    def output_places(self) -> Tensor:
        """Positions in the segment whose last hidden states are wanted: int64 ``[outputs]``."""
        if self.wanted is not None:
            return torch.tensor(self.wanted, dtype=torch.long)
        return torch.arange(self.length - self.outputs, self.length)

    @property
    def outputs(self) -> int:
        """Number of positions whose last hidden states are wanted."""
        if self.causal:
            return self.predicts
        return self.length if self.wanted is None else len(self.wanted)


@dataclass(frozen=True)
class Copy:
    """A copy of keys and values between two sequences that begin alike. Each layer copies after it has written its own.

    Attributes:
        into: keys and values of the sequence that receives them.
        source: keys and values of the other sequence.
        start: first position.
        stop: position after the last.
    """

    into: SequenceCache
    source: SequenceCache
    start: int
    stop: int


def output_rows(segments: Sequence[Segment]) -> Tensor:
    """Rows of the flat batch whose last hidden states are wanted: int64 ``[outputs]``."""
    parts, offset = [], 0
    for segment in segments:
        if segment.outputs:
            parts.append(offset + segment.output_places)
        offset += segment.length
    return torch.cat(parts)
