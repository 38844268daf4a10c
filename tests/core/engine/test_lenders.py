"""Who lends whom the beginning of a prompt."""

from __future__ import annotations

import pytest

from dgemma_core.engine.loans import SHORTEST_LOAN, Lenders
from tests.core.engine.making import make_sequence, make_writer, placed

COMMON = list(range(100, 180))


def test_nobody_lends_at_first() -> None:
    assert Lenders().find(make_sequence(COMMON)) is None


@pytest.mark.parametrize("shared", [SHORTEST_LOAN - 1, SHORTEST_LOAN, 79])
def test_a_loan_is_worth_it_from_a_length_on(shared: int) -> None:
    lenders = Lenders()
    lender = make_sequence([*COMMON[:shared], 7, 7])
    lenders.add(lender, lender.pending)
    loan = lenders.find(make_sequence(COMMON))
    if shared < SHORTEST_LOAN:
        assert loan is None
    else:
        assert loan is not None
        assert (loan.lender, loan.length) == (lender, shared)


def test_only_what_is_encoded_after_the_step_is_lent() -> None:
    lenders = Lenders()
    lender = make_sequence(COMMON)
    lenders.add(lender, 50)
    loan = lenders.find(make_sequence(COMMON))
    assert loan is not None
    assert loan.length == 50


def test_what_a_borrower_has_already_is_not_borrowed() -> None:
    lenders = Lenders()
    lenders.add(make_sequence(COMMON), 80)
    borrower = make_sequence([*COMMON, 5])
    borrower.start(0, 40)
    loan = lenders.find(borrower)
    assert loan is not None
    assert loan.length == 40
    borrower.encoded(20)
    assert lenders.find(borrower) is None, "twenty tokens are too few"


def test_the_longest_beginning_is_found_among_many() -> None:
    lenders = Lenders()
    for cut in (79, 33, 60, 40, 71):
        lenders.add(make_sequence([*COMMON[:cut], 7, cut]), cut + 2)
    wanted = make_sequence([*COMMON[:71], 300, 301])
    loan = lenders.find(wanted)
    assert loan is not None
    assert loan.length == 71


def test_an_answer_borrows_nothing() -> None:
    """A finished canvas that waits to be committed is nobody else's."""
    lenders = Lenders()
    lenders.add(make_sequence(COMMON), 80)
    sequence = make_sequence(COMMON[:40])
    sequence.start(0, 0)
    sequence.encoded(40)
    sequence.tokens.extend(COMMON[40:80])
    assert sequence.pending == 40
    assert lenders.find(sequence) is None


def test_who_writes_in_the_causal_mode_encodes_the_end_of_its_prompt_itself() -> None:
    """It predicts after it, also where a grammar forces text there."""
    lenders = Lenders()
    lender, borrower = make_sequence(COMMON), make_sequence(COMMON, writer=make_writer())
    for sequence in (lender, borrower):
        sequence.tokens.extend([7, 8, 9])
    lenders.add(lender, 83)
    loan = lenders.find(borrower)
    assert loan is not None
    assert loan.length == len(COMMON) - 1


def test_other_pictures_are_other_beginnings() -> None:
    lenders = Lenders()
    lenders.add(make_sequence(COMMON, images=[placed(10, 60, "a1")]), 80)
    loan = lenders.find(make_sequence(COMMON, images=[placed(10, 60, "a1")]))
    assert loan is not None
    assert loan.length == 80
    assert lenders.find(make_sequence(COMMON, images=[placed(10, 60, "b2")])) is None
