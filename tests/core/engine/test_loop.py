"""The loop: slots and memory at admission, who joins and leaves a step, what is remembered, and in what events."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from dgemma_core import BlockEvent, FinishedEvent
from dgemma_core.engine.counters import Counters
from dgemma_core.engine.loop import Loaded, Loop
from dgemma_core.engine.sequence import Sequence
from dgemma_core.errors import DGemmaError, OutOfMemoryError
from dgemma_core.execution.backend import Slot, Step, StepResult
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import make_model
from tests.core.engine.making import CANVAS, END_IDS, SETTINGS, NoteGuide, make_sequence


class SmallBackend(EagerBackend):
    """Has room for so many slots, and keeps the steps it has run."""

    def __init__(self, slots: int = 100) -> None:
        super().__init__(make_model(never_ends=True))
        self.room = slots
        self.steps: list[Step] = []

    @property
    def slots(self) -> set[Slot]:
        return set(self._slots)

    def open(self, capacity: int) -> Slot:
        if len(self._slots) >= self.room:
            raise torch.OutOfMemoryError("out of memory")
        return super().open(capacity)

    def run(self, step: Step) -> StepResult:
        self.steps.append(step)
        return super().run(step)


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def make_loop(backend: EagerBackend, **limits: Any) -> tuple[Loop, list[Sequence]]:
    """A loop, and the sequences that have ended in it."""
    loaded = Loaded(
        backend=backend,
        end_ids=frozenset(END_IDS.tolist()),
        load_s=0.0,
        **{"prefix_cache_bytes": 0, "max_batch_tokens": 1000, "max_running": 8, **limits},
    )
    ended: list[Sequence] = []
    return Loop(loaded, Counters(threading.RLock()), ended.append), ended


def queue(loop: Loop, *sequences: Sequence) -> None:
    for sequence in sequences:
        loop.scheduler.add(sequence)


def stats(loop: Loop) -> Any:
    return loop._counters.snapshot()


def hurried(steps: int) -> Any:
    """Settings under which each canvas takes so many steps."""
    return replace(SETTINGS, max_denoising_steps=steps, confidence_threshold=1e-12)


def run(loop: Loop, steps: int = 1000) -> None:
    for _ in range(steps):
        if not loop.scheduler:
            return
        loop.admit()
        loop.step()


# Memory at admission.


def test_who_finds_no_memory_waits_for_the_others() -> None:
    backend = SmallBackend(slots=1)
    loop, ended = make_loop(backend)
    first, second, third = (make_sequence([100 + i], settings=hurried(2)) for i in range(3))
    queue(loop, first, second, third)
    loop.admit()
    assert list(loop.scheduler.running) == [first]
    assert list(loop.scheduler.waiting) == [second, third]
    run(loop)
    assert ended == [first, second, third]
    assert all(sequence.handle.result(0).finish_reason == "length" for sequence in ended)
    assert not backend.slots
    assert (stats(loop).finished, stats(loop).failed, stats(loop).max_batch) == (3, 0, 1)


def test_who_finds_no_memory_alone_fails() -> None:
    loop, ended = make_loop(SmallBackend(slots=0))
    first, second = make_sequence([100]), make_sequence([101])
    queue(loop, first, second)
    loop.admit()
    assert ended == [first, second]
    with pytest.raises(OutOfMemoryError, match="Lower max_new_tokens"):
        first.handle.result(0)
    assert not loop.scheduler
    assert stats(loop).failed == 2


def test_prefixes_make_room_for_who_is_admitted() -> None:
    backend = SmallBackend()
    loop, _ = make_loop(backend, prefix_cache_bytes=10**6)
    for number in (100, 200):
        queue(loop, make_sequence([number, number + 1], settings=hurried(1)))
        run(loop)
    backend.room = len(backend.slots)
    assert backend.room == len(loop.prefixes) == 2
    queue(loop, make_sequence([150], settings=hurried(1)))
    loop.admit()
    assert len(loop.prefixes) == 0
    assert len(loop.scheduler.running) == 1


def test_a_prefix_that_cannot_be_taken_leaves_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SmallBackend()
    loop, ended = make_loop(backend, prefix_cache_bytes=10**6)
    queue(loop, make_sequence([100, 101, 102], settings=hurried(1)))
    run(loop)
    held = backend.slots

    def fork_prefix(_source: Slot, _into: Slot, _length: int) -> None:
        raise ArithmeticError("bad copy")

    monkeypatch.setattr(backend, "fork_prefix", fork_prefix)
    queue(loop, make_sequence([100, 101, 102], settings=hurried(1)))
    loop.admit()
    with pytest.raises(DGemmaError, match="bad copy"):
        ended[-1].handle.result(0)
    assert backend.slots == held


# Steps.


def test_who_is_done_leaves_the_step_and_who_comes_joins_it() -> None:
    backend = SmallBackend()
    loop, ended = make_loop(backend)
    short, long, late = (make_sequence([100 + i], settings=hurried(steps)) for i, steps in enumerate((1, 3, 1)))
    queue(loop, short, long)
    run(loop, 1)
    assert ended == [short]
    queue(loop, late)
    run(loop)
    assert ended == [short, late, long]
    assert [len(step.canvases) for step in backend.steps] == [2, 2, 1]


def test_prefill_commit_and_denoising_share_passes() -> None:
    """Two canvases of three steps each take six passes: none is only for the prompt or for the first canvas."""
    backend = SmallBackend()
    loop, _ = make_loop(backend)
    sequence = make_sequence(10, room=2 * CANVAS, settings=hurried(3))
    queue(loop, sequence)
    run(loop)
    assert [sum(len(e.tokens) for e in step.encode) for step in backend.steps] == [10, 0, 0, CANVAS, 0, 0]
    assert all(len(step.canvases) == 1 for step in backend.steps)
    counted = stats(loop)
    assert (counted.forward_passes, counted.prefill_tokens) == (6, 10 + CANVAS)
    assert (counted.denoising_steps, counted.positions, counted.canvases) == (6, 6 * CANVAS, 2)
    usage = sequence.handle.result(0).usage
    assert (usage.denoising_steps, usage.positions, usage.canvases) == (6, 6 * CANVAS, 2)


def test_a_conversation_finds_the_answer_before_it() -> None:
    """What is committed of an answer is remembered with its prompt."""
    loop, ended = make_loop(SmallBackend(), prefix_cache_bytes=10**6)
    first = make_sequence(10, room=2 * CANVAS, settings=hurried(1))
    queue(loop, first)
    run(loop)
    assert len(loop.prefixes) == 1
    follow_up = make_sequence([*first.tokens, 70, 71], settings=hurried(1))
    queue(loop, follow_up)
    run(loop)
    assert ended[1].handle.result(0).usage.cached_tokens == 10 + CANVAS
    assert (stats(loop).prefix_hits, stats(loop).prefix_tokens) == (1, 10 + CANVAS)


def test_a_canvas_that_is_only_read_takes_one_step() -> None:
    loop, ended = make_loop(SmallBackend())
    guide = NoteGuide(reads=(2,))
    guide.end = 3
    sequence = make_sequence(4, guide=guide)
    queue(loop, sequence)
    run(loop)
    assert guide.reviewed == [True]
    assert (ended, stats(loop).forward_passes) == ([sequence], 1)


def test_blocks_are_numbered_and_the_last_event_is_the_answer() -> None:
    loop, _ = make_loop(SmallBackend())
    sequence = make_sequence(4, room=2 * CANVAS + 3, settings=hurried(1))
    queue(loop, sequence)
    run(loop)
    *blocks, last = list(sequence.handle)
    assert isinstance(last, FinishedEvent)
    assert [block.index for block in blocks if isinstance(block, BlockEvent)] == [0, 1, 2]
    assert len(last.generation.token_ids) == 2 * CANVAS + 3


def test_an_answer_without_text_has_a_block_too() -> None:
    loop, _ = make_loop(SmallBackend())
    guide = NoteGuide(reads=(0,))
    guide.end = 0
    sequence = make_sequence(4, guide=guide)
    queue(loop, sequence)
    run(loop)
    block, last = list(sequence.handle)
    assert isinstance(block, BlockEvent)
    assert (block.text, block.token_ids) == ("", ())
    assert isinstance(last, FinishedEvent)


def test_a_failing_guide_costs_its_own_request_and_its_slot_is_free() -> None:
    backend = SmallBackend()
    loop, ended = make_loop(backend)
    bad, good = make_sequence([100], guide=NoteGuide(failures=9)), make_sequence([101], settings=hurried(2))
    queue(loop, bad, good)
    run(loop, 1)
    assert ended == [bad]
    assert backend.slots == {good.slot}
    with pytest.raises(DGemmaError, match="no such pin"):
        bad.handle.result(0)
    run(loop)
    assert good.handle.result(0).token_ids
    assert (stats(loop).finished, stats(loop).failed) == (1, 1)
