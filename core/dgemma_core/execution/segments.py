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
        shared: whether another segment of the same sequence begins at the same position. The segments then write their
            keys and values one after the other, each right before it attends, so that none sees another's.
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
    branch: Branch | None = None

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


def turns(segments: Sequence[Segment]) -> list[int]:
    """Indices of the segments, in the order in which they attend.

    Of segments that share their positions the last one leaves its keys and values in the cache: a draft to verify,
    after the draft that is kept apart, after the canvas.
    """

    def place(index: int) -> int:
        segment = segments[index]
        if not segment.shared:
            return 0
        if not segment.causal:
            return 1
        return 3 if segment.branch is None else 2

    return sorted(range(len(segments)), key=place)


def output_rows(segments: Sequence[Segment]) -> Tensor:
    """Rows of the flat batch whose last hidden states are wanted: int64 ``[outputs]``."""
    parts, offset = [], 0
    for segment in segments:
        if segment.wanted is not None:
            parts.append(offset + torch.tensor(segment.wanted, dtype=torch.long))
        elif segment.outputs:
            parts.append(torch.arange(offset + segment.length - segment.outputs, offset + segment.length))
        offset += segment.length
    return torch.cat(parts)
