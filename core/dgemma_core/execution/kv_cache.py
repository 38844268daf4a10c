"""Keys and values of one sequence, with room for its canvas at the tail, and the cache of prefixes across requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgemma_core.execution.row_padding import KEY_MULTIPLE


@dataclass(frozen=True)
class KVLayout:
    """Shape of one layer's keys and values: ``[kv_heads, tokens, head_dim]`` each."""

    kv_heads: int
    head_dim: int


class SequenceCache:
    """Keys and values of one sequence.

    Allocated once for prompt, answer and canvas, then written in place: nothing is concatenated or moved while the
    canvas is denoised. Positions ``[0, committed)`` hold causal (encoder) states; the canvas's own states are written
    behind them in every step and overwritten when the canvas is committed. All layers keep all positions, sliding ones
    too, so that any prefix of a finished sequence can be reused.

    Args:
        layouts: one per layer.
        capacity: tokens to make room for.
        device: where the tensors live.
        dtype: of keys and values.
    """

    def __init__(self, layouts: Sequence[KVLayout], capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        # Attention reads whole multiples of keys and hides the surplus, which must then hold numbers.
        self.capacity = _rounded(capacity)
        self.committed = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        for layout in layouts:
            shape = (layout.kv_heads, self.capacity, layout.head_dim)
            self.keys.append(torch.zeros(shape, device=device, dtype=dtype))
            self.values.append(torch.zeros(shape, device=device, dtype=dtype))

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, all layers."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Write ``[tokens, kv_heads, head_dim]`` keys and values of one layer at position ``start``."""
        stop = start + keys.shape[0]
        self.keys[layer][:, start:stop] = keys.transpose(0, 1)
        self.values[layer][:, start:stop] = values.transpose(0, 1)

    def read(self, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Views ``[kv_heads, stop - start, head_dim]`` of one layer's keys and values."""
        return self.keys[layer][:, start:stop], self.values[layer][:, start:stop]

    def copy_prefix(self, source: SequenceCache, length: int) -> None:
        """Take over the first ``length`` committed positions of ``source``."""
        for layer in range(len(self.keys)):
            self.copy_layer(layer, source, 0, length)
        self.committed = length

    def copy_layer(self, layer: int, source: SequenceCache, start: int, stop: int) -> None:
        """Take over one layer's keys and values of positions ``[start, stop)``."""
        self.keys[layer][:, start:stop] = source.keys[layer][:, start:stop]
        self.values[layer][:, start:stop] = source.values[layer][:, start:stop]

    def trimmed(self, layouts: Sequence[KVLayout]) -> SequenceCache:
        """A copy that holds the committed positions only, without the room for a canvas."""
        keys = self.keys[0]
        kept = SequenceCache(layouts, self.committed, keys.device, keys.dtype)
        kept.copy_prefix(self, self.committed)
        return kept


class PrefixCache:
    """Causal prefixes of past requests, reused by later ones; least recently used first out.

    Any common prefix of token ids counts, at token granularity, so a shared system prompt, a conversation so far or a
    shared RAG context is computed once. Exact: the encoder is causal, and an image's tokens, which may see each other,
    are numbered by what it shows, so that they are shared together or not at all.

    Args:
        layouts: one per layer.
        max_bytes: budget; 0 turns the cache off.
    """

    def __init__(self, layouts: Sequence[KVLayout], max_bytes: int) -> None:
        self._layouts = layouts
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, ...], SequenceCache] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, tokens: Sequence[int], into: SequenceCache) -> int:
        """Copy the longest known prefix of ``tokens`` into ``into``; returns its length in tokens.

        The last prompt token is never taken, so that every request has at least one position to compute.
        """
        best: tuple[int, ...] | None = None
        length = 0
        for known in self._entries:
            common = common_prefix(known, tokens)
            if common > length:
                best, length = known, common
        length = min(length, len(tokens) - 1)
        if best is None or length <= 0:
            return 0
        self._entries.move_to_end(best)
        into.copy_prefix(self._entries[best], length)
        return length

    def put(self, tokens: Sequence[int], cache: SequenceCache) -> None:
        """Remember the committed part of ``cache``, whose token ids are ``tokens``."""
        key = tuple(tokens[: cache.committed])
        if not key or key in self._entries:
            return
        size = cache.nbytes // cache.capacity * _rounded(len(key))
        if size > self._max_bytes:
            return
        for known in [k for k in self._entries if len(k) < len(key) and key[: len(k)] == k]:
            self._drop(known)  # The longer entry serves every request the shorter one could.
        while self.nbytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = cache.trimmed(self._layouts)
        self.nbytes += size

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.nbytes = 0

    def _drop(self, key: tuple[int, ...]) -> None:
        self.nbytes -= self._entries.pop(key).nbytes


def _rounded(capacity: int) -> int:
    return -(-capacity // KEY_MULTIPLE) * KEY_MULTIPLE


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix of two token sequences."""
    limit = min(len(a), len(b))
    low = 0
    # Tuple slices compare in C; halving finds the first difference without a Python loop over tokens.
    high = limit
    if tuple(a[:limit]) == tuple(b[:limit]):
        return limit
    while low < high:
        middle = (low + high + 1) // 2
        if tuple(a[low:middle]) == tuple(b[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
