"""A grammar's cursor: what may follow within the room left, and that the text can always be finished."""

from __future__ import annotations

import pytest

from dgemma_core import Grammar
from dgemma_core.errors import AnswerBudgetError
from dgemma_core.structured.alphabet import Alphabet
from tests.core.structured.grammars import END, cursor_of, letters, row

QUOTED = Grammar.regex('"[a-zA-Z]*"')


def test_too_little_room_is_named(alphabet: Alphabet) -> None:
    shortest = len(alphabet.spell(b"000"))
    with pytest.raises(AnswerBudgetError, match="max_new_tokens=1") as caught:
        cursor_of(alphabet, Grammar.regex("[0-9]{3}"), 1)
    assert caught.value.shortest == shortest
    assert cursor_of(alphabet, Grammar.regex("[0-9]{3}"), shortest).room == shortest


def test_a_draft_is_taken_as_far_as_the_room_goes(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, Grammar.regex("[ab]+"), 4)
    draft = letters(alphabet, b"ababab")
    assert cursor.take(draft) == (draft[:4], True)
    assert (cursor.room, cursor.stopped) == (0, True)


def test_room_for_an_ending_is_kept(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, QUOTED, 5)
    draft = letters(alphabet, b'"xyzxyz')
    assert cursor.take(draft) == (draft[:4], False)
    assert cursor.room == 1


def test_a_repair_keeps_room_for_an_ending(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, Grammar.regex('"x*"'), 3)
    quote, x = letters(alphabet, b'"x')
    cursor.take([quote])
    likes_x = row(alphabet, {b"x": 9.0, b'"': 1.0})
    assert cursor.repair(likes_x, 8) == ([x], False)
    assert cursor.repair(likes_x, 8) == ([quote], True)


def test_a_repair_falls_back_on_the_known_ending(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, QUOTED, 3)
    quote, x = letters(alphabet, b'"x')
    cursor.take([quote, x])
    every_letter = {bytes([byte]): 5.0 for byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    assert cursor.repair(row(alphabet, every_letter), 8) == ([quote], True)


def test_a_repair_may_end_the_text(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, Grammar.choice(["a", "ab"]), 4)
    cursor.take(letters(alphabet, b"a"))
    assert cursor.repair(row(alphabet, {b"b": 1.0}, end=2.0), 8) == ([], True)


def test_forced_tokens_are_taken_up_to_a_limit(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, Grammar.choice(["zzyzx road"]), 20)
    first = cursor.take_forced(3)
    assert len(first) == 3
    assert alphabet.bytes_of([*first, *cursor.take_forced(20)]) == b"zzyzx road"
    assert cursor_of(alphabet, Grammar.choice(["ab", "b"]), 9).take_forced(9) == []


def test_where_a_draft_ends_the_text(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, Grammar.choice(["ab", "abc"]), 9)
    a, b, c = letters(alphabet, b"abc")
    assert cursor.ends_after([a, b, END, c]) == 3
    assert cursor.ends_after([a, b, c, a]) == 3
    assert cursor.ends_after([a, b]) is None
    assert cursor.ends_after([a, END]) is None
    assert cursor.ends_after([b, END]) is None


def test_a_text_is_cut_only_where_it_could_go_on(alphabet: Alphabet) -> None:
    a, b = letters(alphabet, b"ab")
    cursor = cursor_of(alphabet, Grammar.regex("a+"), 2)
    assert not cursor.cut_before([a])
    cursor.take([a, a])
    assert cursor.cut_before([a])
    assert cursor.cut_before([])
    assert not cursor.cut_before([END])
    whole = cursor_of(alphabet, Grammar.choice(["ab"]), 2)
    whole.take([a, b])
    assert not whole.cut_before([a])


def test_what_a_search_may_exchange_begins_after_the_last_delimiter(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, Grammar.json(), 40)
    assert cursor.loose_end(letters(alphabet, b'a"bc"de')) == letters(alphabet, b"de")
    assert cursor.loose_end(letters(alphabet, b"abc")) == letters(alphabet, b"abc")
    assert cursor.loose_end(letters(alphabet, b'a"')) == []


def test_an_end_fits_where_the_text_is_complete(alphabet: Alphabet) -> None:
    cursor = cursor_of(alphabet, Grammar.regex("ab+c?"), 9)
    a, b = letters(alphabet, b"ab")
    assert cursor.fits([a, b, 1, a]) == 4
    assert cursor.fits([a, 1, b]) == 1
    assert cursor.fits([a, b, a]) == 2
    assert cursor.forced_after([a, b, 1]) == []


def test_what_closes_a_hole_ends_its_text(alphabet: Alphabet) -> None:
    pad, digit = 0, letters(alphabet, b"7")
    grammar = Grammar.regex("[0-9]+")
    assert cursor_of(alphabet, grammar, 9).fits([*digit, pad, pad]) == 1
    cursor = cursor_of(alphabet, grammar, 9, frozenset({pad, 1}))
    assert cursor.fits([*digit, pad, pad]) == 3
    assert cursor.fits([pad, *digit]) == 0
    assert cursor.take([*digit, pad, pad]) == (digit, True)
