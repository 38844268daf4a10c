"""Keys and values of one sequence, with room for its canvas at the end."""

from __future__ import annotations

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


Branch = list[tuple[Tensor, Tensor]]
"""Keys and values of a draft beside a sequence's own: per layer ``[tokens, kv_heads, head_dim]`` each."""


class SequenceCache:
    """Keys and values of one sequence.

    They are allocated once for prompt, answer and canvas, and then written in place. So denoising moves nothing.
    Committed positions hold causal (encoder) states. Each step writes the canvas's states after them, and the commit
    overwrites those. All layers keep all positions, also sliding layers, so that any prefix can be reused.

    Args:
        layouts: one per layer.
        capacity: tokens to make room for; rounded up to a multiple of ``KEY_MULTIPLE``.
        device: where the tensors live.
        dtype: of keys and values.
    """

    def __init__(self, layouts: Sequence[KVLayout], capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        # Zeros, because attention reads whole multiples of keys and masks the surplus, which must not be NaN.
        self.capacity = _rounded(capacity)
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

    def adopt(self, branch: Branch, start: int, count: int) -> None:
        """Write the first ``count`` keys and values of a branch at position ``start``, in all layers."""
        for layer, (keys, values) in enumerate(branch):
            self.write(layer, start, keys[:count], values[:count])

    def read(self, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Views ``[kv_heads, stop - start, head_dim]`` of one layer's keys and values."""
        return self.keys[layer][:, start:stop], self.values[layer][:, start:stop]

    def copy_prefix(self, source: SequenceCache, length: int) -> None:
        """Copy the first ``length`` positions of ``source``, in all layers."""
        for layer in range(len(self.keys)):
            self.copy_layer(layer, source, 0, length)

    def copy_layer(self, layer: int, source: SequenceCache, start: int, stop: int) -> None:
        """Copy one layer's keys and values of positions ``[start, stop)``."""
        self.keys[layer][:, start:stop] = source.keys[layer][:, start:stop]
        self.values[layer][:, start:stop] = source.values[layer][:, start:stop]


def cache_bytes(layouts: Sequence[KVLayout], capacity: int, dtype: torch.dtype) -> int:
    """Bytes that a ``SequenceCache`` of these arguments takes."""
    numbers = 2 * sum(layout.kv_heads * layout.head_dim for layout in layouts)
    return numbers * _rounded(capacity) * dtype.itemsize


def _rounded(capacity: int) -> int:
    return -(-capacity // KEY_MULTIPLE) * KEY_MULTIPLE
