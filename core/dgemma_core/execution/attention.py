"""Attention of each sequence's new tokens over its own keys and values, and the masks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_core.execution.kv_cache import SequenceCache
from dgemma_core.execution.row_padding import KEY_MULTIPLE, QUERY_MULTIPLE, pad_rows
from dgemma_core.execution.segments import Segment


@dataclass(frozen=True)
class Reader:
    """Rows of the flat batch that attend together: one segment, or those of a sequence that share their positions.

    Attributes:
        segments: their tokens, end to end.
        first_row: row of the first query in the flat batch.
        rows: number of queries.
        wanted: the queries among the segments' tokens; None for all.
        biases: made so far, by window.
    """

    segments: tuple[Segment, ...]
    first_row: int
    rows: int
    wanted: Tensor | None = None
    biases: dict[int | None, Tensor | None] = field(default_factory=dict)

    @property
    def cache(self) -> SequenceCache:
        """Keys and values of the sequence."""
        return self.segments[0].cache

    @property
    def masked(self) -> bool:
        """Whether some query does not see every key that is read. A lone canvas sees all of them."""
        return len(self.segments) > 1 or self.segments[0].causal

    def keys(self, window: int | None) -> tuple[int, int]:
        """Range ``[first, stop)`` of the keys that are read; with a mask, whole multiples of ``KEY_MULTIPLE``."""
        first = min(0 if window is None else max(0, segment.start - window + 1) for segment in self.segments)
        stop = max(segment.key_stop for segment in self.segments)
        if not self.masked:
            return first, stop
        return first // KEY_MULTIPLE * KEY_MULTIPLE, -(-stop // KEY_MULTIPLE) * KEY_MULTIPLE

    def bias(self, window: int | None, heads: int, like: Tensor) -> Tensor | None:
        """What is added to the attention scores: 0 where a query sees a key, ``-inf`` elsewhere. Layers share it.

        Args:
            window: keys that a query sees, its own included; None for all.
            heads: query heads for each key head.
            like: gives device and dtype.

        Returns:
            ``[heads * rows, keys]`` with the rows padded to a multiple of ``QUERY_MULTIPLE``. None if all see all.
        """
        if not self.masked:
            return None
        if window not in self.biases:
            first, stop = self.keys(window)
            visible = torch.cat([_visible(segment, window, first, stop) for segment in self.segments])
            if self.wanted is not None:
                visible = visible[self.wanted]
            # Padding queries see every key, because a query that sees none gives NaN.
            visible = F.pad(visible, (0, 0, 0, -len(visible) % QUERY_MULTIPLE), value=True)
            bias = torch.zeros(visible.shape, dtype=like.dtype).masked_fill_(~visible, -torch.inf)
            self.biases[window] = bias.repeat(heads, 1).to(like.device)
        return self.biases[window]


def _visible(segment: Segment, window: int | None, first: int, stop: int) -> Tensor:
    """Which of the keys ``[first, stop)`` each token of a segment sees: bool ``[length, stop - first]``."""
    key = torch.arange(first, stop)
    own = key - segment.place  # The segment's own tokens, by their number.
    query = torch.arange(segment.length)[:, None]
    if not segment.causal:
        nearest = 0 if window is None else segment.start - window + 1
        mine = (own >= 0) & (own < segment.stop - segment.start)
        return (mine | ((key < segment.start) & (key >= nearest))).expand(segment.length, -1)
    visible = ((own >= 0) & (own <= query)) | (key < segment.start)
    if window is not None:
        position = torch.where(own >= 0, segment.start + own, key)
        visible &= position > segment.start + query - window
    for begin, after in segment.blocks:
        visible[begin - segment.start : after - segment.start, begin - first : after - first] = True
    return visible


def readers(segments: Sequence[Segment]) -> list[Reader]:
    """The readers of a flat batch, in its order."""
    made, row = [], 0
    for members in _together(segments):
        count = sum(segment.length for segment in members)
        made.append(Reader(members, row, count))
        row += count
    return made


def readers_of_outputs(before: Sequence[Reader]) -> list[Reader]:
    """The same readers with only the rows of wanted positions; see ``Segment.outputs``."""
    made, row = [], 0
    for reader in before:
        count = sum(segment.outputs for segment in reader.segments)
        if count:
            offset, wanted = 0, []
            for segment in reader.segments:
                wanted.append(offset + segment.output_places)
                offset += segment.length
            made.append(Reader(reader.segments, row, count, torch.cat(wanted)))
        row += count
    return made


def _together(segments: Sequence[Segment]) -> Iterator[tuple[Segment, ...]]:
    numbered = enumerate(segments)
    for _, members in groupby(numbered, lambda item: (id(item[1].cache), item[1].start) if item[1].shared else item[0]):
        yield tuple(segment for _, segment in members)


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float, rows: int) -> Tensor:
    """Grouped-query attention (https://arxiv.org/abs/2305.13245).

    Args:
        queries: ``[tokens, heads, dim]``, at least ``rows``.
        keys: ``[kv_heads, keys, dim]``.
        values: ``[kv_heads, keys, dim]``.
        bias: ``[heads / kv_heads * padded rows, keys]``, added to the scores; None if all see all.
        scale: factor of the attention scores.
        rows: number of queries. The tokens after them pad them to a multiple of ``QUERY_MULTIPLE``.

    Returns:
        ``[tokens, heads, dim]``, at least ``rows``.
    """
    wanted = -(-rows // QUERY_MULTIPLE) * QUERY_MULTIPLE
    queries = queries[:wanted] if len(queries) >= wanted else pad_rows(queries[:rows], QUERY_MULTIPLE)
    tokens, heads, dim = queries.shape
    kv_heads = keys.shape[0]
    # The queries of a group are more rows over the same keys, so no key is repeated.
    grouped = queries.transpose(0, 1).reshape(1, kv_heads, heads // kv_heads * tokens, dim)
    out = F.scaled_dot_product_attention(grouped, keys[None], values[None], attn_mask=bias, scale=scale)
    return out.view(heads, tokens, dim).transpose(0, 1)
