"""Prefixes across requests."""

from __future__ import annotations

import pytest
import torch

from dgemma_core.engine.prefixes import PrefixCache, common_prefix
from dgemma_core.execution.backend import EncodeSegment, Slot, Step
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import make_model


@torch.inference_mode()
def filled(backend: EagerBackend, tokens: list[int]) -> Slot:
    """A slot that has encoded the tokens."""
    slot = backend.open(len(tokens))
    backend.run(Step(encode=(EncodeSegment(slot, 0, torch.tensor(tokens)),)))
    return slot


@pytest.fixture(scope="module")
def backend() -> EagerBackend:
    return EagerBackend(make_model())


def keys(backend: EagerBackend, slot: Slot, length: int) -> torch.Tensor:
    return backend._slots[slot].cache.read(1, 0, length)[0]


def test_longest_prefix_is_taken_but_never_the_whole_prompt(backend: EagerBackend) -> None:
    prefixes = PrefixCache(backend, 10**6)
    known = filled(backend, [11, 12, 13, 14])
    prefixes.put([11, 12, 13, 14], known)
    prefixes.put([11, 12, 19], filled(backend, [11, 12, 19]))
    into = backend.open(16)
    assert prefixes.take([11, 12, 13, 17, 18], into) == 3
    assert torch.equal(keys(backend, into, 3), keys(backend, known, 3))
    assert bool(keys(backend, into, 3).any())
    assert prefixes.take([11, 12, 13, 14], into) == 3
    assert prefixes.take([18, 11, 12], into) == 0


def test_budget_is_kept_and_the_oldest_goes_first(backend: EagerBackend) -> None:
    one = backend.slot_bytes(4)
    prefixes = PrefixCache(backend, 2 * one)
    for start in (10, 20, 30):
        tokens = [start, start + 1, start + 2, start + 3]
        prefixes.put(tokens, filled(backend, tokens))
        assert prefixes.nbytes <= 2 * one
    into = backend.open(16)
    assert prefixes.take([10, 11, 12, 13, 14], into) == 0
    assert prefixes.take([20, 21, 22, 23, 24], into) == 4
    assert len(prefixes) == 2


def test_what_was_used_lately_stays(backend: EagerBackend) -> None:
    prefixes = PrefixCache(backend, 2 * backend.slot_bytes(4))
    first, second, third = ([start, start + 1, start + 2, start + 3] for start in (10, 20, 30))
    into = backend.open(16)
    for tokens in (first, second):
        prefixes.put(tokens, filled(backend, tokens))
    assert prefixes.take([*first, 9], into) == 4
    prefixes.put(third, filled(backend, third))
    assert prefixes.take([*second, 9], into) == 0
    assert prefixes.take([*first, 9], into) == 4


def test_a_longer_entry_replaces_its_own_prefix(backend: EagerBackend) -> None:
    prefixes = PrefixCache(backend, 10**6)
    held = len(backend._slots)
    first, second = filled(backend, [11, 12]), filled(backend, [11, 12, 13])
    prefixes.put([11, 12], first)
    prefixes.put([11, 12, 13], second)
    assert len(prefixes) == 1
    prefixes.clear()
    assert (len(prefixes), prefixes.nbytes) == (0, 0)
    backend.close(first)
    backend.close(second)
    assert len(backend._slots) == held, "what is forgotten gives its slot back"


def test_zero_budget_keeps_nothing(backend: EagerBackend) -> None:
    prefixes = PrefixCache(backend, 0)
    prefixes.put([11, 12], filled(backend, [11, 12]))
    assert len(prefixes) == 0


def test_a_prefix_that_cannot_be_copied_leaves_nothing_behind(
    backend: EagerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork_prefix(source: Slot, into: Slot, length: int) -> None:
        raise MemoryError

    prefixes, slot = PrefixCache(backend, 10**6), filled(backend, [11, 12])
    held = len(backend._slots)
    monkeypatch.setattr(backend, "fork_prefix", fork_prefix)
    with pytest.raises(MemoryError):
        prefixes.put([11, 12], slot)
    assert (len(prefixes), prefixes.nbytes, len(backend._slots)) == (0, 0, held)


def test_common_prefix() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix((), [1]) == 0
    assert common_prefix(tuple(range(1000)), list(range(999))) == 999
    assert common_prefix([7, *range(50)], [8, *range(50)]) == 0
