"""What counts as lost for want of room."""

from __future__ import annotations

from dgemma_core import Grammar
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.grammar_region import GrammarRegion
from dgemma_core.structured.shortfall import Shortfall
from tests.core.structured.grammars import END, GivenRows, cursor_of, drafted_canvas, letters, rows_for


def test_a_refusal_is_lost_unless_the_text_gets_it_in_other_tokens(alphabet: Alphabet) -> None:
    shortfall = Shortfall(alphabet.bytes_of)
    assert not shortfall.lost
    shortfall.refuse(letters(alphabet, b'ur"'))
    assert shortfall.lost
    shortfall.take(letters(alphabet, b"u"))
    assert shortfall.lost
    shortfall.take(alphabet.spell(b'r"}'))
    assert not shortfall.lost


def test_what_differs_stays_lost(alphabet: Alphabet) -> None:
    shortfall = Shortfall(alphabet.bytes_of)
    shortfall.take(letters(alphabet, b"before"))
    shortfall.refuse(letters(alphabet, b"ab"))
    shortfall.take(letters(alphabet, b"ac"))
    shortfall.refuse(letters(alphabet, b"d"))
    shortfall.take(letters(alphabet, b"d"))
    assert shortfall.lost


def test_an_ending_in_fewer_tokens_than_drafted_loses_nothing(alphabet: Alphabet) -> None:
    """The draft spells a word letter by letter, and the room has only a token for it."""
    draft = [*letters(alphabet, b"xthe"), END, END, END]
    assert len(alphabet.spell(b"the")) == 1
    logits = rows_for(alphabet, 7, draft)
    grammar = Grammar.choice(["xthe", "x"])
    for room, word, cut in [(4, b"xthe", False), (3, b"xthe", False), (2, b"xthe", False), (1, b"x", True)]:
        region = GrammarRegion(cursor_of(alphabet, grammar, room))
        canvas = drafted_canvas(alphabet, draft, logits, steps=1)
        at = region.review(canvas, 0, 7, True, GivenRows(logits))
        assert region.complete
        assert alphabet.bytes_of(canvas.argmax[:at].tolist()) == word
        assert region.cut(canvas, at, 7, GivenRows(logits)) is cut


def test_a_full_room_is_no_loss_where_the_next_token_would_be_the_end(alphabet: Alphabet) -> None:
    """The draft's next token cannot follow; what the grammar allows there is weighed as a repair would weigh it."""
    draft = letters(alphabet, b"12;;")
    for after, cut in [(END, False), (letters(alphabet, b"3")[0], True)]:
        logits = rows_for(alphabet, 4, draft)
        logits[2, after] = 6.0
        canvas = drafted_canvas(alphabet, draft, logits)
        region = GrammarRegion(cursor_of(alphabet, Grammar.regex("[0-9]+"), 2))
        assert region.review(canvas, 0, 4, True, GivenRows(logits)) == 2
        assert region.complete
        assert region.cut(canvas, 2, 4, GivenRows(logits)) is cut
        assert region.cut(canvas, 2, 4, GivenRows(logits[:2])), "nothing is known of the position after the text"


def test_thoughts_cut_for_the_sake_of_what_must_follow_are_lost(alphabet: Alphabet) -> None:
    """As with reasoning before a call: the free part may be as long as it likes, and the rest must fit after it."""
    draft = [*letters(alphabet, b"thoughts!ab"), END]
    logits = rows_for(alphabet, 12, draft)
    for room, cut in [(12, False), (11, False), (10, True), (7, True), (3, True)]:
        region = GrammarRegion(cursor_of(alphabet, Grammar.regex("[a-z]*!ab"), room))
        canvas = drafted_canvas(alphabet, draft, logits, steps=1)
        at = region.review(canvas, 0, 12, True, GivenRows(logits))
        assert region.complete
        assert alphabet.bytes_of(canvas.argmax[:at].tolist()).endswith(b"!ab")
        assert region.cut(canvas, at, 12, GivenRows(logits)) is cut
