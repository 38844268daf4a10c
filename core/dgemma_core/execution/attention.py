"""Attention of each segment over its own sequence's keys and values, and the masks for it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_core.execution.row_padding import KEY_MULTIPLE, QUERY_MULTIPLE, pad_rows
from dgemma_core.execution.segments import Segment


@dataclass(frozen=True)
class View:
    """The keys that one segment attends to, in one kind of layer.

    Attributes:
        segment: the queries.
        window: keys that a query of a sliding layer sees, its own included; None in a full layer.
        cached: masks made so far, by window.
        first_row: row of the first query in the flat batch.
        rows: number of queries: all of the segment's, or its outputs.
    """

    segment: Segment
    window: int | None
    cached: dict[int | None, Tensor]
    first_row: int
    rows: int

    @property
    def first_key(self) -> int:
        """Position of the first key. For a causal segment it is rounded down to a multiple; the mask hides the rest."""
        first = 0 if self.window is None else max(0, self.segment.start - self.window + 1)
        return first // KEY_MULTIPLE * KEY_MULTIPLE if self.segment.causal else first

    @property
    def last_key(self) -> int:
        """Position after the last key. For a causal segment it is rounded up to a multiple; the mask hides the rest."""
        stop = self.segment.stop
        return -(-stop // KEY_MULTIPLE) * KEY_MULTIPLE if self.segment.causal else stop

    def mask(self, device: torch.device) -> Tensor | None:
        """Which keys each query sees: bool ``[rows, last_key - first_key]``. The layers share one mask.

        None for a canvas, which sees every key.
        """
        if not self.segment.causal:
            return None
        whole = self._whole_mask(device)
        # The outputs of a causal segment are its last tokens.
        return whole[len(whole) - self.rows :]

    def _whole_mask(self, device: torch.device) -> Tensor:
        if self.window not in self.cached:
            start, length = self.segment.start, self.segment.length
            query = torch.arange(start, start + length, device=device)[:, None]
            key = torch.arange(self.first_key, self.last_key, device=device)[None]
            visible = key <= query
            if self.window is not None:
                visible &= key > query - self.window
            for first, after in self.segment.blocks:
                visible[first - start : after - start, first - self.first_key : after - self.first_key] = True
            self.cached[self.window] = visible
        return self.cached[self.window]


class Masks:
    """The views of all segments, for sliding and for full layers.

    Args:
        segments: in the order of the flat batch.
        window: of the sliding layers.
    """

    def __init__(self, segments: Sequence[Segment], window: int) -> None:
        self._segments = segments
        self._window = window
        self._cached: list[dict[int | None, Tensor]] = [{} for _ in segments]
        self._make_views([segment.length for segment in segments])

    def views(self, sliding: bool) -> list[View]:
        """The views of all segments, for one kind of layer."""
        return self._sliding if sliding else self._full

    def of_outputs(self) -> Masks:
        """The same views with only the rows of wanted positions; see ``Segment.outputs``."""
        rest = copy(self)
        rest._make_views([segment.outputs for segment in self._segments])
        return rest

    def _make_views(self, counts: Sequence[int]) -> None:
        """Make the views of a flat batch with so many rows per segment."""
        first = list(accumulate(counts, initial=0))
        self._sliding, self._full = (
            [
                View(segment, window, cached, row, count)
                for segment, cached, row, count in zip(self._segments, self._cached, first, counts, strict=False)
            ]
            for window in (self._window, None)
        )


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Grouped-query attention (https://arxiv.org/abs/2305.13245).

    Args:
        queries: ``[tokens, heads, dim]``.
        keys: ``[kv_heads, keys, dim]``.
        values: ``[kv_heads, keys, dim]``.
        mask: bool ``[tokens, keys]``, True where a query sees a key; None if all see all.
        scale: factor of the attention scores.

    Returns:
        ``[tokens, heads, dim]``.
    """
    wanted = queries.shape[0]
    queries = pad_rows(queries, QUERY_MULTIPLE)
    tokens, heads, dim = queries.shape
    kv_heads = keys.shape[0]
    grouped = queries.transpose(0, 1).unflatten(0, (kv_heads, heads // kv_heads))
    if mask is None:
        # Without a mask the queries of a group are more rows over the same keys, so no key is repeated.
        out = F.scaled_dot_product_attention(grouped.flatten(1, 2)[None], keys[None], values[None], scale=scale)
        return out[0].view(heads, tokens, dim).transpose(0, 1)[:wanted]
    # Padding queries see every key, because a query that sees none gives NaN. They are cut off at the end.
    mask = F.pad(mask, (0, 0, 0, tokens - wanted), value=True)
    group = heads // kv_heads
    keys = keys[:, None].expand(-1, group, -1, -1)
    values = values[:, None].expand(-1, group, -1, -1)
    out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    return out.reshape(heads, tokens, dim).transpose(0, 1)[:wanted]
