"""A region of a canvas kept within a grammar: what is pinned, what is repaired, what is denoised again."""

from __future__ import annotations

import pytest
import torch

from dgemma_core import Grammar
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.grammar_region import RENEWAL, GrammarRegion
from tests.core.structured.grammars import END, GivenRows, cursor_of, drafted_canvas, letters, rows_for

WORD = Grammar.regex("ab[a-z]{10}")


def test_a_forced_beginning_is_pinned(alphabet: Alphabet) -> None:
    canvas = drafted_canvas(alphabet, [5] * 20, rows_for(alphabet, 20, [5] * 20))
    region = GrammarRegion(cursor_of(alphabet, Grammar.choice(["zzyzx"]), 20))
    at = region.open(canvas, 2, 20)
    assert region.complete
    assert alphabet.bytes_of(canvas.argmax[2:at].tolist()) == b"zzyzx"
    assert canvas.pinned.nonzero().flatten().tolist() == list(range(2, at))
    assert region.open(canvas, at, 20) == at


def test_an_ended_text_stays_ended_on_the_next_canvas(alphabet: Alphabet) -> None:
    """The grammar would let a `b` follow, but the draft ended the text before it."""
    draft = [*letters(alphabet, b"a"), END, END]
    logits = rows_for(alphabet, 3, draft)
    region = GrammarRegion(cursor_of(alphabet, Grammar.choice(["a", "ab"]), 9))
    assert region.review(drafted_canvas(alphabet, draft, logits), 0, 3, True, GivenRows(logits)) == 1
    assert region.complete
    assert region.open(drafted_canvas(alphabet, draft, logits), 0, 3) == 0
    assert region.complete


def test_an_unsure_draft_that_fits_is_left_alone(alphabet: Alphabet) -> None:
    draft = letters(alphabet, b"abcdefghijkl")
    logits = rows_for(alphabet, 12, draft)
    canvas = drafted_canvas(alphabet, draft, logits)
    region = GrammarRegion(cursor_of(alphabet, WORD, 12))
    assert region.review(canvas, 0, 12, False, GivenRows(logits)) == 0
    assert not canvas.pinned.any()
    assert not region.complete


def test_a_settled_draft_that_fits_is_verified(alphabet: Alphabet) -> None:
    draft = letters(alphabet, b"abcdefghijkl")
    logits = rows_for(alphabet, 12, draft)
    canvas = drafted_canvas(alphabet, draft, logits)
    region = GrammarRegion(cursor_of(alphabet, WORD, 12))
    assert region.review(canvas, 0, 12, True, GivenRows(logits)) == 12
    assert canvas.pinned.all()
    assert region.complete
    assert canvas.argmax.tolist() == draft


@pytest.mark.parametrize(("steps_left", "restarted"), [(RENEWAL, True), (RENEWAL - 1, False)])
def test_after_a_repair_the_rest_is_restarted_if_steps_are_left(
    alphabet: Alphabet, steps_left: int, restarted: bool
) -> None:
    draft = letters(alphabet, b"xbcdefghijkl")
    logits = rows_for(alphabet, 12, draft)
    canvas = drafted_canvas(alphabet, draft, logits, steps=1 + steps_left)
    canvas.steady[:] = True
    region = GrammarRegion(cursor_of(alphabet, WORD, 12))
    at = region.review(canvas, 0, 12, False, GivenRows(logits))
    assert 0 < at < 12
    assert alphabet.bytes_of(canvas.argmax[:at].tolist()).startswith(b"ab"[:at])
    assert canvas.draft(at, 12) == ([] if restarted else draft[at:])


def test_an_exhausted_canvas_is_finished(alphabet: Alphabet) -> None:
    draft = letters(alphabet, b"abcd?fg!ijkl")
    logits = rows_for(alphabet, 12, draft)
    logits[4, letters(alphabet, b"y")] = logits[7, letters(alphabet, b"z")] = 3.0
    canvas = drafted_canvas(alphabet, draft, logits, steps=1)
    region = GrammarRegion(cursor_of(alphabet, WORD, 12))
    assert region.review(canvas, 0, 12, False, GivenRows(logits)) == 12
    assert region.complete
    assert alphabet.bytes_of(canvas.argmax.tolist()) == b"abcdyfgzijkl"


def test_a_draft_too_long_for_the_room_is_mended(alphabet: Alphabet) -> None:
    draft = letters(alphabet, b'"abcdefghijk')
    logits = rows_for(alphabet, 12, draft)
    canvas = drafted_canvas(alphabet, draft, logits)
    region = GrammarRegion(cursor_of(alphabet, Grammar.regex('"[a-z]*"'), 5))
    at = region.review(canvas, 0, 12, True, GivenRows(logits))
    assert region.complete
    assert alphabet.bytes_of(canvas.argmax[:at].tolist()) == b'"abc"'


@pytest.mark.parametrize(("sureness", "verified"), [(12.0, b"Wheat"), (0.0, b"check_wood")])
def test_what_must_follow_and_what_is_drafted_are_weighed(alphabet: Alphabet, sureness: float, verified: bytes) -> None:
    """A sure first letter that leaves one name only must not bring in the rest of it against all that is drafted."""
    logits = rows_for(alphabet, 12, letters(alphabet, b"cheat"))
    # After the first letter the draft is sure, or as good as noise.
    logits[1:] *= sureness / 12
    logits[0, letters(alphabet, b"W")] = 4.0
    canvas = drafted_canvas(alphabet, [*letters(alphabet, b"cheat"), *[1] * 7], logits)
    canvas.steady = torch.arange(12) == 0
    region = GrammarRegion(cursor_of(alphabet, Grammar.choice(["check_wood", "Wheat"]), 12))
    at = region.review(canvas, 0, 12, False, GivenRows(logits))
    assert alphabet.bytes_of(canvas.draft(0, at)) == verified
    assert region.complete
