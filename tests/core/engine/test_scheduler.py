"""Who takes part in a step: order, budget, chunks, images, admission and loans."""

from __future__ import annotations

import random

import pytest

from dgemma_core.engine.loans import SHORTEST_LOAN
from dgemma_core.engine.scheduler import Scheduler, Work
from dgemma_core.engine.sequence import Sequence
from tests.core.engine.making import CANVAS, make_sequence, placed


def admitted(scheduler: Scheduler, *sequences: Sequence) -> list[Sequence]:
    """Queue the sequences and admit as many as there is room for."""
    for sequence in sequences:
        scheduler.add(sequence)
    started = []
    for slot, sequence in enumerate(scheduler.admit()):
        sequence.start(slot, 0)
        started.append(sequence)
    return started


def done(work: list[Work]) -> None:
    """What a successful pass changes for the scheduler."""
    for part in work:
        if part.loan:
            part.sequence.borrowed(part.loan.length)
        part.sequence.encoded(part.encode)


def summary(work: list[Work]) -> list[tuple[Sequence, int, bool]]:
    return [(part.sequence, part.encode, part.denoise) for part in work]


def distinct(count: int, length: int = 4) -> list[Sequence]:
    """Sequences whose prompts have nothing in common."""
    return [make_sequence(list(range(100 * i, 100 * i + length))) for i in range(count)]


def test_first_come_first_served() -> None:
    scheduler = Scheduler(1000, 8)
    assert not scheduler
    sequences = distinct(3)
    assert admitted(scheduler, *sequences) == sequences
    assert scheduler
    assert summary(scheduler.schedule()) == [(sequence, 4, True) for sequence in sequences]
    assert scheduler.sequences() == sequences


def test_prompt_and_first_canvas_share_a_pass() -> None:
    scheduler = Scheduler(1000, 8)
    (sequence,) = admitted(scheduler, make_sequence(20))
    (part,) = scheduler.schedule()
    assert (part.begin, part.encode, part.denoise, part.tokens) == (0, 20, True, 20 + CANVAS)
    done([part])
    (part,) = scheduler.schedule()
    assert (part.begin, part.encode, part.denoise, part.tokens) == (20, 0, True, CANVAS)
    # A finished canvas is committed in the pass that takes the first step of the next one.
    sequence.tokens.extend(range(CANVAS))
    (part,) = scheduler.schedule()
    assert (part.begin, part.encode, part.denoise) == (20, CANVAS, True)


def test_the_budget_is_kept_and_who_was_left_out_is_first_next_time() -> None:
    scheduler = Scheduler(1000, 8)
    sequences = admitted(scheduler, *distinct(4))
    scheduler.max_batch_tokens = 20
    a, b, c, d = sequences
    work = scheduler.schedule()
    assert summary(work) == [(a, 4, True), (b, 4, False), (c, 4, False)]
    assert sum(part.tokens for part in work) == 20
    done(work)
    assert summary(scheduler.schedule()) == [(d, 4, True), (a, 0, True)]
    assert summary(scheduler.schedule())[0] == (b, 0, True)


def test_no_step_is_ever_over_the_budget() -> None:
    chooser = random.Random(0)
    scheduler = Scheduler(50, 16)
    sequences = [make_sequence([chooser.randrange(500) for _ in range(chooser.randint(1, 120))]) for _ in range(12)]
    admitted(scheduler, *sequences)
    taken: set[Sequence] = set()
    for _ in range(300):
        work = scheduler.schedule()
        assert 0 < sum(part.tokens for part in work) <= 50
        taken |= {part.sequence for part in work if part.denoise}
        done(work)
        admitted(scheduler)
    assert taken == set(scheduler.running), "a sequence starves"
    assert len(taken) > 3


def test_long_prompts_are_encoded_in_chunks() -> None:
    scheduler = Scheduler(24, 8)
    admitted(scheduler, make_sequence(100))
    seen = []
    while not seen or not seen[-1][1]:
        (part,) = scheduler.schedule()
        seen.append((part.encode, part.denoise))
        done([part])
    assert seen == [(24, False)] * 4 + [(4, True)]


def test_a_lone_canvas_wider_than_the_budget_runs() -> None:
    scheduler = Scheduler(1000, 8)
    first, second = admitted(scheduler, *distinct(2))
    done(scheduler.schedule())
    scheduler.max_batch_tokens = CANVAS - 1
    assert summary(scheduler.schedule()) == [(first, 0, True)]
    assert summary(scheduler.schedule()) == [(second, 0, True)]


def test_an_image_is_encoded_whole() -> None:
    scheduler = Scheduler(1000, 8)
    (sequence,) = admitted(scheduler, make_sequence(20, images=[placed(3, 9)]))
    scheduler.max_batch_tokens = 11
    chunks = []
    while sequence.pending:
        (part,) = scheduler.schedule()
        chunks.append(part.encode)
        done([part])
    assert chunks == [3, 11, 6]


def test_a_lone_image_larger_than_the_budget_is_encoded() -> None:
    scheduler = Scheduler(1000, 8)
    pictured, other = admitted(scheduler, make_sequence(20, images=[placed(0, 9)]), make_sequence([7, 8]))
    scheduler.max_batch_tokens = 5
    assert summary(scheduler.schedule()) == [(pictured, 9, False)]
    # Not first, it waits until it is.
    scheduler.max_batch_tokens = 2 + CANVAS + 5
    assert summary(scheduler.schedule()) == [(other, 2, True)]


@pytest.mark.parametrize(("budget", "count"), [(11, 1), (12, 1), (13, 2), (24, 2), (25, 3), (1, 1)])
def test_admission_ends_with_the_budget(budget: int, count: int) -> None:
    """Each wants twelve positions; one is admitted while some budget is left, and one always."""
    scheduler = Scheduler(budget, 8)
    sequences = distinct(5)
    assert admitted(scheduler, *sequences) == sequences[:count]
    assert list(scheduler.waiting) == sequences[count:]
    assert admitted(scheduler) == []


def test_admission_ends_with_the_slots() -> None:
    scheduler = Scheduler(1000, 2)
    a, b, c = distinct(3)
    assert admitted(scheduler, a, b, c) == [a, b]
    scheduler.remove(a)
    assert admitted(scheduler) == [c]
    assert scheduler.sequences() == [b, c]


def test_what_is_put_back_is_first_in_line() -> None:
    scheduler = Scheduler(1000, 8)
    a, b, c = distinct(3)
    for sequence in (a, b, c):
        scheduler.add(sequence)
    for sequence in scheduler.admit():
        if sequence is b:
            scheduler.put_back(b)
            break
    assert (list(scheduler.running), list(scheduler.waiting)) == ([a], [b, c])
    assert list(scheduler.admit()) == [b, c]


def test_what_has_ended_is_forgotten_wherever_it_is() -> None:
    scheduler = Scheduler(1000, 1)
    a, b = distinct(2)
    admitted(scheduler, a, b)
    scheduler.remove(b)
    scheduler.remove(a)
    scheduler.remove(a)
    assert not scheduler


def test_a_common_beginning_is_lent() -> None:
    common = list(range(100, 100 + SHORTEST_LOAN))
    scheduler = Scheduler(1000, 8)
    first, second = admitted(scheduler, make_sequence([*common, 1, 2]), make_sequence([*common, 3]))
    lender, borrower = scheduler.schedule()
    assert lender.loan is None
    assert borrower.loan is not None
    assert (borrower.loan.lender, borrower.loan.length) == (first, SHORTEST_LOAN)
    assert (borrower.begin, borrower.encode, borrower.denoise) == (SHORTEST_LOAN, 1, True)
    alone = borrower.alone()
    assert (alone.loan, alone.begin, alone.encode, alone.sequence) == (None, 0, SHORTEST_LOAN + 1, second)
    assert lender.alone() is lender


def test_a_loan_costs_no_budget() -> None:
    common = list(range(100, 140))
    scheduler = Scheduler(1000, 8)
    admitted(scheduler, *(make_sequence([*common, i]) for i in range(3)))
    scheduler.max_batch_tokens = 41 + CANVAS + 2 * (1 + CANVAS)
    work = scheduler.schedule()
    assert [part.encode for part in work] == [41, 1, 1]
    assert all(part.denoise for part in work)


def test_equal_prompts_borrow_everything() -> None:
    scheduler = Scheduler(1000, 8)
    admitted(scheduler, make_sequence(40), make_sequence(40))
    _, borrower = scheduler.schedule()
    assert (borrower.encode, borrower.begin, borrower.denoise) == (0, 40, True)


def test_a_loan_is_taken_even_where_the_canvas_does_not_fit() -> None:
    scheduler = Scheduler(1000, 8)
    admitted(scheduler, make_sequence(100), make_sequence(100))
    scheduler.max_batch_tokens = 100 + CANVAS + 1
    _, borrower = scheduler.schedule()
    assert borrower.loan is not None
    assert (borrower.loan.length, borrower.encode, borrower.denoise) == (100, 0, False)
