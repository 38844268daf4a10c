"""Drafts from earlier tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dgemma_core.denoise.lookup import Lookup


def lookup(tokens: list[int]) -> Lookup:
    made = Lookup(len(tokens) + 8)
    made.extend(tokens)
    return made


def test_the_tokens_after_the_last_occurrence_are_the_draft() -> None:
    assert lookup([5, 6, 1, 9, 5, 6, 2, 9, 5, 6]).draft(3) == [2, 9, 5]


def test_a_longer_end_comes_before_a_later_occurrence() -> None:
    assert lookup([1, 2, 3, 40, 3, 50, 1, 2, 3]).draft(1) == [40]


def test_a_draft_may_run_into_the_text_that_it_continues() -> None:
    assert lookup([7, 7, 7]).draft(5) == [7]


def test_new_tokens_have_no_draft() -> None:
    assert lookup([1, 2, 3]).draft(4) == []
    assert lookup([1]).draft(4) == []
    assert lookup([1, 1]).draft(0) == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 6))
def test_drafts_are_those_of_a_plain_search(tokens: list[int], length: int) -> None:
    expected: list[int] = []
    for size in range(min(4, len(tokens) - 1), 0, -1):
        ends = [i + size for i in range(len(tokens) - size) if tokens[i : i + size] == tokens[-size:]]
        if ends:
            expected = tokens[ends[-1] : ends[-1] + length]
            break
    assert lookup(tokens).draft(length) == expected
