"""Attention of each segment over its own sequence's keys and values, and what it may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_core.execution.row_padding import KEY_MULTIPLE, QUERY_MULTIPLE, pad_rows
from dgemma_core.execution.segments import Segment


@dataclass(frozen=True)
class View:
    """What one segment may attend to in one kind of layer."""

    segment: Segment
    window: int | None
    cached: dict[int | None, Tensor | None]

    @property
    def first_key(self) -> int:
        """The first key; a causal segment begins at a multiple, and its mask hides the surplus."""
        first = 0 if self.window is None else max(0, self.segment.start - self.window + 1)
        return first // KEY_MULTIPLE * KEY_MULTIPLE if self.segment.causal else first

    @property
    def last_key(self) -> int:
        """After the last key; keys of a causal segment that the mask hides fill up a multiple."""
        stop = self.segment.stop
        return -(-stop // KEY_MULTIPLE) * KEY_MULTIPLE if self.segment.causal else stop

    def mask(self, device: torch.device) -> Tensor | None:
        """``[length, last_key - first_key]`` bool, or None for a canvas, which sees every key. Shared by the layers."""
        if not self.segment.causal:
            return None
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
    """The views of all segments, for sliding and for full layers."""

    def __init__(self, segments: Sequence[Segment], window: int) -> None:
        cached: list[dict[int | None, Tensor | None]] = [{} for _ in segments]
        self._sliding = [View(s, window, c) for s, c in zip(segments, cached, strict=True)]
        self._full = [View(s, None, c) for s, c in zip(segments, cached, strict=True)]

    def views(self, sliding: bool) -> list[View]:
        """The views of all segments, for one kind of layer."""
        return self._sliding if sliding else self._full

    def of_outputs(self) -> Masks:
        """The same, where only the rows of wanted positions are left; see ``Segment.outputs``."""
        rest = Masks((), 0)
        rest._sliding, rest._full = (
            [replace(v, segment=replace(v.segment, length=v.segment.outputs)) for v in views if v.segment.outputs]
            for views in (self._sliding, self._full)
        )
        return rest


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Grouped-query attention of ``[tokens, heads, dim]`` queries over ``[kv_heads, keys, dim]``."""
    wanted = queries.shape[0]
    queries = pad_rows(queries, QUERY_MULTIPLE)
    tokens, heads, dim = queries.shape
    kv_heads = keys.shape[0]
    grouped = queries.transpose(0, 1).unflatten(0, (kv_heads, heads // kv_heads))
    if mask is None:
        # Without a mask the queries of a group are just more rows over the same keys: no key is repeated.
        out = F.scaled_dot_product_attention(grouped.flatten(1, 2)[None], keys[None], values[None], scale=scale)
        return out[0].view(heads, tokens, dim).transpose(0, 1)[:wanted]
    # Added queries see everything (none may see nothing) and are cut off again.
    mask = F.pad(mask, (0, 0, 0, tokens - wanted), value=True)
    group = heads // kv_heads
    keys = keys[:, None].expand(-1, group, -1, -1)
    values = values[:, None].expand(-1, group, -1, -1)
    out = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale)
    return out.reshape(heads, tokens, dim).transpose(0, 1)[:wanted]
