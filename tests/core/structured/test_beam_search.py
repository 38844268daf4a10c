"""The likeliest tokens that a grammar allows, weighed over several positions."""

from __future__ import annotations

import pytest
import torch

from dgemma_core import Grammar
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.beam_search import TokenSearch
from tests.core.structured.grammars import END, cursor_of, letters, matcher_of, row, rows_for

SEARCH = TokenSearch(frozenset({END}))


def found(alphabet: Alphabet, grammar: Grammar, rows: list[torch.Tensor], count: int) -> bytes | None:
    """The text of the best path, with a full stop for an end token."""
    path = SEARCH.best_path(matcher_of(alphabet, grammar), torch.stack(rows), count)
    return None if path is None else b"".join(b"." if t == END else alphabet.bytes_of([t]) for t in path)


def test_positions_are_weighed_together(alphabet: Alphabet) -> None:
    rows = [row(alphabet, {b"a": 2.0, b"c": 1.5}), row(alphabet, {b"b": 0.0, b"d": 3.0})]
    assert found(alphabet, Grammar.choice(["ab", "cd"]), rows, 2) == b"cd"
    assert found(alphabet, Grammar.choice(["ab", "cd"]), rows, 1) == b"c"
    assert found(alphabet, Grammar.choice(["ab", "cd"]), rows[:1], 1) == b"a"


def test_a_text_ends_at_the_last_token_wanted_or_later(alphabet: Alphabet) -> None:
    rows = [row(alphabet, {b"a": 5.0}), row(alphabet, {b"b": 1.0}, end=5.0), row(alphabet, {b"c": 1.0}, end=5.0)]
    grammar = Grammar.choice(["a", "ab"])
    assert found(alphabet, grammar, rows, 1) == b"a"
    assert found(alphabet, grammar, rows, 2) == b"a."
    assert found(alphabet, grammar, rows, 3) == b"ab"


def test_an_early_end_is_not_preferred_for_being_short(alphabet: Alphabet) -> None:
    rows = [row(alphabet, {b"a": 0.0}), row(alphabet, {b"b": -0.1}, end=-2.0), row(alphabet, {b"c": -3.0})]
    assert found(alphabet, Grammar.choice(["a", "abc"]), rows, 2) == b"ab"


def test_an_unlikely_token_is_found_where_it_is_the_only_one(alphabet: Alphabet) -> None:
    assert found(alphabet, Grammar.choice(["z"]), [row(alphabet, {b"z": -9.0}, other=5.0)], 1) == b"z"


def test_a_search_leaves_the_matcher_as_it_was(alphabet: Alphabet) -> None:
    matcher = matcher_of(alphabet, Grammar.choice(["abc"]), b"a")
    SEARCH.best_path(matcher, torch.stack([row(alphabet, {b"b": 1.0})]), 1)
    list(SEARCH.candidates(matcher, row(alphabet, {b"b": 1.0})))
    assert matcher.accepts(letters(alphabet, b"bc")) == 2


def test_candidates_are_the_allowed_tokens_and_ends_in_order(alphabet: Alphabet) -> None:
    logits = row(alphabet, {b"x": 9.0, b"b": 2.0, b"c": 4.0}, end=3.0)
    grammar = Grammar.choice(["a", "ab", "ac"])
    b, c = letters(alphabet, b"bc")
    assert list(SEARCH.candidates(matcher_of(alphabet, grammar, b"a"), logits)) == [c, END, b]
    assert END not in SEARCH.candidates(matcher_of(alphabet, grammar), logits)


def test_what_closes_a_hole_is_allowed_where_the_text_is_complete(alphabet: Alphabet) -> None:
    pad, logits = 0, rows_for(alphabet, 1, [0])[0]
    search = TokenSearch(frozenset({pad, END}))
    grammar = Grammar.choice(["a", "ab"])
    assert next(search.candidates(matcher_of(alphabet, grammar, b"a"), logits)) == pad
    assert pad not in search.candidates(matcher_of(alphabet, grammar), logits)


def test_a_mistake_is_looked_for_before_where_it_shows(alphabet: Alphabet) -> None:
    """`setch_lunch` is refused at its second letter; the letters after it show that the first one is wrong."""
    cursor = cursor_of(alphabet, Grammar.choice(["fetch_lunch", "start_car", "stop"]), 40)
    draft = letters(alphabet, b"setch_lunch")
    first = letters(alphabet, b"f")
    assert cursor.fits(draft) == 1
    assert cursor.forced_after(first)
    logits = rows_for(alphabet, len(draft), draft)
    logits[0, first] = 8.0
    found = cursor.search(logits, 2)
    assert found is not None
    assert (alphabet.bytes_of(found[0]), found[1]) == (b"fe", False)
    found = cursor.search(rows_for(alphabet, 12, [*letters(alphabet, b"tch_lunch"), 1, 1, 1]), 12)
    assert found is not None
    assert (alphabet.bytes_of(found[0]), found[1]) == (b"tch_lunch", True)
    assert cursor.stopped


@pytest.mark.parametrize(("text", "text_found"), [(b"see ", b"see <|t"), (b"s", b"see <|t"), (b"plaid", b"plain")])
def test_a_search_does_not_take_a_control_token_for_its_characters(
    alphabet: Alphabet, text: bytes, text_found: bytes
) -> None:
    """Where characters spell a control token, the grammar engine's mask holds the token, which it then refuses."""
    cursor = cursor_of(alphabet, Grammar.choice(["plain", "see <|think|>"]), 40)
    found = cursor.search(rows_for(alphabet, 9, letters(alphabet, text)), 7)
    assert found is not None
    assert alphabet.bytes_of(found[0]) == text_found
