"""A pass that fails is repeated or split until only the request at fault is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dgemma_core.engine.isolation import IsolatedSteps, Outcome, as_engine_error
from dgemma_core.engine.loans import Loan
from dgemma_core.engine.scheduler import Work
from dgemma_core.engine.sequence import Sequence
from dgemma_core.engine.step import StepRunner, slot_of
from dgemma_core.errors import DGemmaError, OutOfMemoryError
from dgemma_core.execution.backend import Step, StepResult
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import make_model
from tests.core.engine.making import END_IDS, NoteGuide, make_sequence

POISON = 77


class FailingBackend(EagerBackend):
    """Fails where ``fails`` says so, after the work is done: keys and values are written by then."""

    def __init__(self, fails: Callable[[Step], Exception | None]) -> None:
        super().__init__(make_model())
        self.fails = fails
        self.steps: list[Step] = []

    def run(self, step: Step) -> StepResult:
        self.steps.append(step)
        result = super().run(step)
        error = self.fails(step)
        if error is not None:
            raise error
        return result

    @property
    def sizes(self) -> list[int]:
        """Requests of each pass that was tried."""
        return [len({part.slot for part in (*step.encode, *step.canvases)}) for step in self.steps]


def poisoned(step: Step) -> Exception | None:
    return ArithmeticError("bad row") if any(POISON in segment.tokens for segment in step.encode) else None


def times(count: int, error: Exception) -> Callable[[Step], Exception | None]:
    left = [error] * count
    return lambda _step: left.pop() if left else None


@torch.inference_mode()
def run(backend: FailingBackend, sequences: list[Sequence], freed: list[str] | None = None) -> list[Outcome]:
    notes = [] if freed is None else freed
    runner = StepRunner(backend, frozenset(END_IDS.tolist()))
    steps = IsolatedSteps(runner, lambda: notes.append("freed"))
    for sequence in sequences:
        sequence.start(backend.open(sequence.capacity), 0)
    return list(steps.run([Work(s, s.pending, True) for s in sequences]))


def distinct(count: int, marked: int = -1) -> list[Sequence]:
    return [make_sequence([POISON if i == marked else 100 + i, 5, 6]) for i in range(count)]


def test_a_good_step_is_one_pass() -> None:
    backend = FailingBackend(lambda _step: None)
    sequences = distinct(4)
    outcomes = run(backend, sequences)
    assert backend.sizes == [4]
    assert [part.sequence for part, _, _ in outcomes] == sequences
    assert all(result is not None and error is None for _, result, error in outcomes)
    assert [sequence.committed for sequence in sequences] == [3] * 4


@pytest.mark.parametrize("marked", range(5))
def test_only_the_one_at_fault_fails(marked: int) -> None:
    backend = FailingBackend(poisoned)
    sequences = distinct(5, marked)
    outcomes = run(backend, sequences)
    assert [part.sequence for part, _, _ in outcomes] == sequences
    assert [isinstance(error, ArithmeticError) for _, _, error in outcomes] == [i == marked for i in range(5)]
    assert [result is None for _, result, _ in outcomes] == [i == marked for i in range(5)]
    assert [s.committed for s in sequences] == [0 if i == marked else 3 for i in range(5)]


def test_a_split_pass_gives_the_same_results() -> None:
    whole = run(FailingBackend(lambda _step: None), distinct(4))
    split = run(FailingBackend(times(1, ArithmeticError("once"))), distinct(4))
    for (_, a, _), (_, b, _) in zip(whole, split, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a.argmax, b.argmax)
        assert torch.equal(a.sample, b.sample)
        assert torch.equal(a.entropy, b.entropy)


def test_out_of_memory_is_tried_again_once() -> None:
    freed: list[str] = []
    backend = FailingBackend(times(1, torch.OutOfMemoryError("out of memory")))
    outcomes = run(backend, distinct(3), freed)
    assert (backend.sizes, freed) == ([3, 3], ["freed"])
    assert all(error is None for _, _, error in outcomes)


def test_out_of_memory_that_stays_is_split() -> None:
    freed: list[str] = []
    backend = FailingBackend(lambda step: torch.OutOfMemoryError("out of memory") if len(step.canvases) > 2 else None)
    outcomes = run(backend, distinct(4), freed)
    assert (backend.sizes, freed) == ([4, 4, 2, 2], ["freed"])
    assert all(error is None for _, _, error in outcomes)


def test_other_errors_are_not_tried_again() -> None:
    freed: list[str] = []
    backend = FailingBackend(poisoned)
    run(backend, distinct(2, 0), freed)
    assert (backend.sizes, freed) == ([2, 1, 1], [])


def test_one_alone_that_runs_out_of_memory_fails() -> None:
    freed: list[str] = []
    backend = FailingBackend(lambda _step: MemoryError())
    ((_, _, error),) = run(backend, distinct(1), freed)
    assert isinstance(error, MemoryError)
    assert (backend.sizes, freed) == ([1, 1], ["freed"])


def test_passes_that_succeed_are_counted() -> None:
    backend = FailingBackend(poisoned)
    steps = IsolatedSteps(StepRunner(backend, frozenset({1})), lambda: None)
    sequences = distinct(4, 3)
    for sequence in sequences:
        sequence.start(backend.open(sequence.capacity), 0)
    with torch.inference_mode():
        counted = [steps.passes for _ in steps.run([Work(s, 3, True) for s in sequences])]
    # Whoever is told of a part finds the passes counted that it took.
    assert counted == [1, 1, 2, 2]
    assert list(steps.run([])) == []


def test_a_guide_that_fails_costs_its_own_request() -> None:
    backend = FailingBackend(lambda _step: None)
    bad = make_sequence([80, 5], guide=NoteGuide(failures=9))
    good = make_sequence([81, 5], guide=NoteGuide())
    first, second = run(backend, [good, bad])
    assert first[0].sequence is bad
    assert isinstance(first[2], ArithmeticError)
    assert bad.canvas is None
    assert second[0].sequence is good
    assert second[2] is None
    assert backend.sizes == [1]


def test_who_borrows_from_one_that_fails_encodes_for_itself() -> None:
    backend = FailingBackend(lambda _step: None)
    lender, borrower = make_sequence(40, guide=NoteGuide(failures=1)), make_sequence(40)
    for sequence in (lender, borrower):
        sequence.start(backend.open(sequence.capacity), 0)
    steps = IsolatedSteps(StepRunner(backend, frozenset({1})), lambda: None)
    with torch.inference_mode():
        outcomes = list(steps.run([Work(lender, 40, True), Work(borrower, 0, True, Loan(lender, 40))]))
    assert [error is None for _, _, error in outcomes] == [False, True]
    (step,) = backend.steps
    assert (step.copies, [len(s.tokens) for s in step.encode], step.encode[0].slot) == ((), [40], slot_of(borrower))
    assert borrower.committed == 40
    assert borrower.usage().cached_tokens == 0


def test_a_split_pass_lends_nothing() -> None:
    backend = FailingBackend(times(1, ArithmeticError("once")))
    sequences = [make_sequence(40) for _ in range(4)]
    for sequence in sequences:
        sequence.start(backend.open(sequence.capacity), 0)
    lender, *others = sequences
    work = [Work(lender, 40, True), *(Work(s, 0, True, Loan(lender, 40)) for s in others)]
    steps = IsolatedSteps(StepRunner(backend, frozenset({1})), lambda: None)
    with torch.inference_mode():
        outcomes = list(steps.run(work))
    assert [len(step.copies) for step in backend.steps] == [3, 0, 0]
    assert all(error is None for _, _, error in outcomes)
    assert [sequence.committed for sequence in sequences] == [40] * 4


def test_errors_as_callers_see_them() -> None:
    own = DGemmaError("own")
    assert as_engine_error(own) is own
    memory = MemoryError()
    wrapped = as_engine_error(memory)
    assert isinstance(wrapped, OutOfMemoryError)
    assert wrapped.__cause__ is memory
    other = ArithmeticError("bad row")
    wrapped = as_engine_error(other)
    assert type(wrapped) is DGemmaError
    assert wrapped.__cause__ is other
    assert "bad row" in str(wrapped)
