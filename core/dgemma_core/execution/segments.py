"""The input of a forward pass: consecutive tokens of sequences, and copies between sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_core.execution.kv_cache import SequenceCache


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
    """

    cache: SequenceCache
    start: int
    length: int
    causal: bool
    stop: int
    blocks: tuple[tuple[int, int], ...] = ()
    wanted: tuple[int, ...] | None = None

    @property
    def outputs(self) -> int:
        """Number of positions whose last hidden states are wanted. A causal segment has none, only keys and values."""
        if self.causal:
            return 0
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
            places = torch.arange(segment.length) if segment.wanted is None else torch.tensor(segment.wanted)
            parts.append(offset + places)
        offset += segment.length
    return torch.cat(parts)
