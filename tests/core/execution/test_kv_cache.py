"""Keys and values in place."""

from __future__ import annotations

import torch

from dgemma_core.execution.kv_cache import KVLayout, SequenceCache

LAYOUTS = [KVLayout(2, 4), KVLayout(1, 8)]


def filled(tokens: list[int], capacity: int = 16) -> SequenceCache:
    """A cache whose keys and values are the token ids."""
    cache = SequenceCache(LAYOUTS, capacity, torch.device("cpu"), torch.float32)
    for layer, layout in enumerate(LAYOUTS):
        states = torch.tensor(tokens, dtype=torch.float32)[:, None, None].expand(-1, layout.kv_heads, layout.head_dim)
        cache.write(layer, 0, states, -states)
    return cache


def test_write_and_read_in_place() -> None:
    cache = filled([5, 6, 7])
    address = cache.keys[0].data_ptr()
    cache.write(0, 3, torch.ones(2, 2, 4), torch.ones(2, 2, 4))
    keys, values = cache.read(0, 1, 5)
    assert keys[0, :, 0].tolist() == [6, 7, 1, 1]
    assert values[1, :, 3].tolist() == [-6, -7, 1, 1]
    assert cache.keys[0].data_ptr() == address
