"""Keys and values in place, and prefixes across requests."""

from __future__ import annotations

import torch

from dgemma_core.execution.kv_cache import KVLayout, PrefixCache, SequenceCache, common_prefix

LAYOUTS = [KVLayout(2, 4), KVLayout(1, 8)]


def filled(tokens: list[int], capacity: int = 16) -> SequenceCache:
    """A cache whose keys and values are the token ids."""
    cache = SequenceCache(LAYOUTS, capacity, torch.device("cpu"), torch.float32)
    for layer, layout in enumerate(LAYOUTS):
        states = torch.tensor(tokens, dtype=torch.float32)[:, None, None].expand(-1, layout.kv_heads, layout.head_dim)
        cache.write(layer, 0, states, -states)
    cache.committed = len(tokens)
    return cache


def test_write_and_read_in_place() -> None:
    cache = filled([5, 6, 7])
    address = cache.keys[0].data_ptr()
    cache.write(0, 3, torch.ones(2, 2, 4), torch.ones(2, 2, 4))
    keys, values = cache.read(0, 1, 5)
    assert keys[0, :, 0].tolist() == [6, 7, 1, 1]
    assert values[1, :, 3].tolist() == [-6, -7, 1, 1]
    assert cache.keys[0].data_ptr() == address


def test_longest_prefix_is_taken_but_never_the_whole_prompt() -> None:
    prefixes = PrefixCache(LAYOUTS, 10**6)
    prefixes.put([1, 2, 3, 4], filled([1, 2, 3, 4]))
    prefixes.put([1, 2, 9], filled([1, 2, 9]))
    into = SequenceCache(LAYOUTS, 16, torch.device("cpu"), torch.float32)
    assert prefixes.take([1, 2, 3, 7, 8], into) == 3
    assert into.read(1, 0, 3)[0][0, :, 0].tolist() == [1, 2, 3]
    assert prefixes.take([1, 2, 3, 4], into) == 3
    assert prefixes.take([8, 1, 2], into) == 0


def test_budget_is_kept_and_the_oldest_goes_first() -> None:
    one = filled([1, 2, 3, 4], capacity=4).nbytes
    prefixes = PrefixCache(LAYOUTS, 2 * one)
    for start in (10, 20, 30):
        tokens = [start, start + 1, start + 2, start + 3]
        prefixes.put(tokens, filled(tokens))
        assert prefixes.nbytes <= 2 * one
    into = SequenceCache(LAYOUTS, 16, torch.device("cpu"), torch.float32)
    assert prefixes.take([10, 11, 12, 13, 14], into) == 0
    assert prefixes.take([20, 21, 22, 23, 24], into) == 4
    assert len(prefixes) == 2


def test_a_longer_entry_replaces_its_own_prefix() -> None:
    prefixes = PrefixCache(LAYOUTS, 10**6)
    prefixes.put([1, 2], filled([1, 2]))
    prefixes.put([1, 2, 3], filled([1, 2, 3]))
    assert len(prefixes) == 1
    prefixes.clear()
    assert (len(prefixes), prefixes.nbytes) == (0, 0)


def test_zero_budget_keeps_nothing() -> None:
    prefixes = PrefixCache(LAYOUTS, 0)
    prefixes.put([1, 2], filled([1, 2]))
    assert len(prefixes) == 0


def test_common_prefix() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix((), [1]) == 0
    assert common_prefix(tuple(range(1000)), list(range(999))) == 999
    assert common_prefix([7, *range(50)], [8, *range(50)]) == 0
