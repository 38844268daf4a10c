"""Scheduled work as plain data, and what a step gave booked."""

from __future__ import annotations

import pytest
import torch

from dgemma_core.engine.loans import Loan
from dgemma_core.engine.scheduler import Work
from dgemma_core.engine.sequence import Sequence
from dgemma_core.engine.step import StepRunner, book, build_step, commit, slot_of
from dgemma_core.execution.backend import PrefixCopy
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import make_model
from tests.core.engine.making import CANVAS, END_IDS, VOCAB, NoteGuide, make_sequence, placed


@pytest.fixture(scope="module")
def backend() -> EagerBackend:
    return EagerBackend(make_model())


@pytest.fixture
def runner(backend: EagerBackend) -> StepRunner:
    return StepRunner(backend, frozenset(END_IDS.tolist()))


def started(backend: EagerBackend, sequence: Sequence) -> Sequence:
    sequence.start(backend.open(sequence.capacity), 0)
    return sequence


@torch.inference_mode()
def test_a_step_names_slots_positions_and_tokens(backend: EagerBackend, runner: StepRunner) -> None:
    a, b, c = (started(backend, make_sequence(n)) for n in (40, 40, 6))
    c.encoded(6)
    work = [Work(a, 30, False), Work(b, 8, True, Loan(a, 30)), Work(c, 0, True)]
    for part in work:
        runner.open_canvas(part)
    step = build_step(work)
    assert [(s.slot, s.start, s.tokens.tolist()) for s in step.encode] == [
        (slot_of(a), 0, a.tokens[:30]),
        (slot_of(b), 30, b.tokens[30:38]),
    ]
    assert [(s.slot, s.start, s.length, s.active) for s in step.canvases] == [
        (slot_of(b), 38, CANVAS, CANVAS),
        (slot_of(c), 6, CANVAS, CANVAS),
    ]
    assert step.copies == (PrefixCopy(slot_of(b), slot_of(a), 0, 30),)
    assert a.canvas is None, "only work that denoises has a canvas"


def test_a_canvas_segment_is_what_the_canvas_says(backend: EagerBackend, runner: StepRunner) -> None:
    guide = NoteGuide(reads=(1, 5))
    sequence = started(backend, make_sequence(4, guide=guide))
    work = Work(sequence, 4, True)
    runner.open_canvas(work)
    canvas = sequence.canvas
    assert canvas is not None
    (segment,) = build_step([work]).canvases
    assert (segment.reads, segment.guided, segment.temperature) == ((1, 5), True, pytest.approx(0.8))
    assert torch.equal(segment.uniform, canvas.uniform)
    assert bool(segment.unconditioned.all())
    assert not segment.pinned.any()
    canvas.advance(torch.full((CANVAS,), 9), torch.full((CANVAS,), 9), torch.zeros(CANVAS))
    canvas.pin(2, [60])
    canvas.disturb(6, CANVAS)
    canvas.active = 7
    (segment,) = build_step([work]).canvases
    assert (segment.length, segment.active, len(segment.uniform)) == (CANVAS, 7, 7)
    assert segment.pinned.tolist() == [i == 2 for i in range(7)]
    assert segment.unconditioned.tolist() == [i == 6 for i in range(7)]


def test_a_recorded_step_does_not_change_with_its_canvas(backend: EagerBackend, runner: StepRunner) -> None:
    sequence = started(backend, make_sequence(4))
    work = Work(sequence, 4, True)
    runner.open_canvas(work)
    step = build_step([work])
    before = [field.clone() for c in step.canvases for field in (c.tokens, c.pinned, c.unconditioned, c.uniform)]
    canvas = sequence.canvas
    assert canvas is not None
    canvas.advance(torch.full((CANVAS,), 9), torch.full((CANVAS,), 9), torch.zeros(CANVAS))
    canvas.pin(0, [60])
    canvas.disturb(1, CANVAS)
    after = [field for c in step.canvases for field in (c.tokens, c.pinned, c.unconditioned, c.uniform)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_images_travel_with_the_chunk_that_holds_them(backend: EagerBackend) -> None:
    sequence = started(backend, make_sequence(12, images=[placed(2, 3, "a1"), placed(7, 4, "b2")]))
    (segment,) = build_step([Work(sequence, 6, False)]).encode
    assert [(image.start, image.stop) for image in segment.images] == [(2, 5)]
    sequence.encoded(6)
    (segment,) = build_step([Work(sequence, 6, False)]).encode
    assert [(image.start, image.stop) for image in segment.images] == [(7, 11)]


@torch.inference_mode()
def test_a_pass_changes_no_sequence_and_can_be_repeated(backend: EagerBackend, runner: StepRunner) -> None:
    a, b = (started(backend, make_sequence(n)) for n in (40, 6))
    work = [Work(a, 30, False), Work(b, 6, True)]
    for part in work:
        runner.open_canvas(part)
    first = runner.forward(work)
    assert (a.committed, b.committed) == (0, 0)
    second = runner.forward(work)
    assert first[0] is second[0] is None
    assert first[1] is not None
    assert second[1] is not None
    for name in ("argmax", "sample", "entropy"):
        assert torch.equal(getattr(first[1], name), getattr(second[1], name))
    commit(work)
    assert (a.committed, b.committed) == (30, 6)


def test_commit_books_loans(backend: EagerBackend) -> None:
    a, b = (started(backend, make_sequence(40)) for _ in range(2))
    commit([Work(a, 40, True), Work(b, 0, True, Loan(a, 40))])
    assert (a.committed, b.committed) == (40, 40)
    assert (a.usage().cached_tokens, b.usage().cached_tokens) == (0, 40)


@torch.inference_mode()
def test_results_are_those_of_their_parts(backend: EagerBackend, runner: StepRunner) -> None:
    """A canvas that a guide only reads has none; the order is the work's."""
    read = started(backend, make_sequence(4, guide=NoteGuide(reads=(3,))))
    plain = started(backend, make_sequence([70, 71, 72]))
    waiting = started(backend, make_sequence(9))
    work = [Work(read, 4, True), Work(waiting, 9, False), Work(plain, 3, True)]
    for part in work:
        runner.open_canvas(part)
    results = runner.forward(work)
    assert results[0] is results[1] is None
    assert results[2] is not None
    assert len(results[2].argmax) == CANVAS
    commit(work)
    assert book(work[0], results[0]) is True, "what is only read is settled"
    assert book(work[2], results[2]) is False
    assert read.usage().denoising_steps == plain.usage().denoising_steps == 1
    assert plain.usage().positions == CANVAS
    assert plain.canvas is not None
    assert torch.equal(plain.canvas.argmax, results[2].argmax)


@torch.inference_mode()
def test_rows_are_the_canvass_distributions(backend: EagerBackend, runner: StepRunner) -> None:
    sequence = started(backend, make_sequence(4, guide=NoteGuide()))
    work = Work(sequence, 4, True)
    runner.open_canvas(work)
    (result,) = runner.forward([work])
    commit([work])
    book(work, result)
    assert sequence.canvas is not None
    assert result is not None
    rows = runner.rows(sequence, sequence.canvas)
    logits = rows.logits(2, 5)
    assert logits.shape == (3, VOCAB)
    assert torch.equal(logits.argmax(-1), result.argmax[2:5])
    (labels,) = rows.label_logits([2], [[7, 8, 9]])
    # Not divided by the temperature, which is the coming step's.
    torch.testing.assert_close(labels / sequence.canvas.temperature, logits[0, 7:10])


def test_only_an_admitted_sequence_has_a_slot() -> None:
    with pytest.raises(AssertionError, match="admitted"):
        slot_of(make_sequence(4))
