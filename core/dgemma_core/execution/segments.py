"""What a forward pass computes: consecutive tokens of sequences, and what is copied between them."""

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
        causal: encoder mode (prompt chunk, commit) or decoder mode (canvas).
        stop: positions attended end here. For a canvas it may lie after ``start + length``: a frozen tail is read,
            not computed.
        blocks: in a causal segment, positions ``[start, stop)`` that see each other in both directions, at any
            distance: images, where the checkpoint wants it. Each lies within the segment.
        wanted: of a canvas, the positions (from its start) whose last hidden states are wanted; None: all of them.
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
        """Positions whose last hidden states are wanted; none of a causal segment, whose keys and values are enough."""
        if self.causal:
            return 0
        return self.length if self.wanted is None else len(self.wanted)


@dataclass(frozen=True)
class Copy:
    """Positions ``[start, stop)`` of a sequence that begins like another one, filled in as soon as that one has them.

    Attributes:
        into: the sequence's keys and values.
        source: the other one's.
        start: first position.
        stop: after the last.
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
