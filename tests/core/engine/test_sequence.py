"""A request's state after each event."""

from __future__ import annotations

import pytest
import torch

from dgemma_core.denoise.causal_writer import Accepted
from dgemma_core.engine.sequence import Sequence, before_end
from tests.core.engine.making import CANVAS, END_IDS, VOCAB, NoteGuide, make_sequence, make_writer, placed

ENDS = frozenset(END_IDS.tolist())


def with_argmax(sequence: Sequence, *tokens: int) -> Sequence:
    """The sequence with a canvas whose likeliest tokens are these, then 9 to its end."""
    canvas = sequence.open_canvas(VOCAB, END_IDS)
    canvas.argmax = torch.tensor([*tokens, *[9] * (CANVAS - len(tokens))])
    return sequence


def test_a_new_one_waits() -> None:
    sequence = make_sequence(5, room=12)
    assert (sequence.slot, sequence.canvas, sequence.committed) == (None, None, 0)
    assert (sequence.pending, sequence.prefilling, sequence.prompt_length) == (5, True, 5)
    assert (sequence.budget, sequence.active) == (12, CANVAS)
    assert sequence.identities == sequence.tokens


@pytest.mark.parametrize(("room", "capacity"), [(1, 5 + 8), (8, 5 + 8), (9, 5 + 16), (16, 5 + 16)])
def test_capacity_is_the_prompt_and_whole_canvases(room: int, capacity: int) -> None:
    assert make_sequence(5, room=room).capacity == capacity


def test_prompt_events() -> None:
    sequence = make_sequence(10)
    sequence.start(3, 4)
    assert (sequence.slot, sequence.committed, sequence.pending, sequence.prefilling) == (3, 4, 6, True)
    sequence.borrowed(2)
    assert (sequence.committed, sequence.usage().cached_tokens) == (6, 6)
    sequence.encoded(4)
    assert (sequence.committed, sequence.pending, sequence.prefilling) == (10, 0, False)
    assert sequence.usage().cached_tokens == 6


def test_a_canvas_is_opened_once() -> None:
    sequence = make_sequence(5)
    canvas = sequence.open_canvas(VOCAB, END_IDS)
    assert sequence.open_canvas(VOCAB, END_IDS) is canvas is sequence.canvas
    canvas.active = 3
    assert sequence.active == 3


def test_seeds_make_the_noise() -> None:
    noise = [make_sequence(5, seed=seed).open_canvas(VOCAB, END_IDS).tokens.tolist() for seed in (1, 1, 2, None, None)]
    assert noise[0] == noise[1]
    assert len({tuple(n) for n in noise}) == 4


def test_a_guide_opens_each_canvas_and_reviews_it() -> None:
    guide = NoteGuide(reads=(2, 5))
    sequence = make_sequence(5, room=16, guide=guide)
    canvas = sequence.open_canvas(VOCAB, END_IDS)
    sequence.open_canvas(VOCAB, END_IDS)
    assert guide.opened == [canvas]
    assert sequence.reads == (2, 5)
    assert make_sequence(5).reads is None
    assert sequence.review(True, None) is True  # type: ignore[arg-type]
    assert guide.reviewed == [True]
    assert sequence.usage().guide_s > 0


def test_a_guide_that_fails_leaves_no_canvas_to_go_on_with() -> None:
    guide = NoteGuide(failures=1)
    sequence = make_sequence(5, guide=guide)
    with pytest.raises(ArithmeticError):
        sequence.open_canvas(VOCAB, END_IDS)
    assert sequence.canvas is None
    assert sequence.open_canvas(VOCAB, END_IDS) is guide.opened[1]


# What a finished canvas becomes.


def test_an_answer_that_goes_on() -> None:
    sequence = with_argmax(make_sequence(5, room=20), 11, 12)
    sequence.start(0, 0)
    sequence.encoded(5)
    tokens, reason = sequence.close_canvas(ENDS)
    assert (tokens, reason) == ([11, 12, 9, 9, 9, 9, 9, 9], None)
    assert sequence.canvas is None
    assert (sequence.pending, sequence.budget, sequence.prefilling) == (CANVAS, 20 - CANVAS, False)
    assert sequence.tokens[5:] == tokens
    assert sequence.usage().canvases == 1


@pytest.mark.parametrize("end", [1, 4])
def test_an_end_token_ends_it(end: int) -> None:
    sequence = with_argmax(make_sequence(5, room=20), 11, end, 12, 1)
    assert sequence.close_canvas(ENDS) == ([11], "stop")
    assert sequence.pending == 5, "an answer that has ended is not committed"


def test_an_answer_may_be_empty() -> None:
    assert with_argmax(make_sequence(5), 1).close_canvas(ENDS) == ([], "stop")


@pytest.mark.parametrize(
    ("room", "kept"),
    [(3, 3), (CANVAS, CANVAS)],
)
def test_the_length_is_exact(room: int, kept: int) -> None:
    tokens, reason = with_argmax(make_sequence(5, room=room)).close_canvas(ENDS)
    assert (tokens, reason) == ([9] * kept, "length")


def test_an_end_right_after_the_last_allowed_token_is_an_end() -> None:
    assert with_argmax(make_sequence(5, room=2), 11, 12, 1).close_canvas(ENDS) == ([11, 12], "stop")
    assert with_argmax(make_sequence(5, room=2), 11, 12, 13, 1).close_canvas(ENDS) == ([11, 12], "length")


def test_a_full_last_canvas_without_an_end_is_cut() -> None:
    sequence = make_sequence(5, room=CANVAS + 3)
    with_argmax(sequence).close_canvas(ENDS)
    assert with_argmax(sequence, 11, 12).close_canvas(ENDS) == ([11, 12, 9], "length")
    assert sequence.usage().canvases == 2


@pytest.mark.parametrize(("cut", "reason"), [(False, "stop"), (True, "length")])
def test_a_guide_says_where_it_ends(cut: bool, reason: str) -> None:
    guide = NoteGuide()
    sequence = with_argmax(make_sequence(5, guide=guide), 11, 1, 12)
    guide.end, guide.cut = 3, cut
    assert sequence.close_canvas(ENDS) == ([11, 1, 12], reason)


def test_with_a_guide_an_end_token_is_a_token_like_others() -> None:
    sequence = with_argmax(make_sequence(5, room=20, guide=NoteGuide()), 11, 1)
    tokens, reason = sequence.close_canvas(ENDS)
    assert (tokens[:2], reason, len(tokens)) == ([11, 1], None, CANVAS)


def test_before_end() -> None:
    assert before_end([7, 8, 4, 1], ENDS) == [7, 8]
    assert before_end([7, 8], ENDS) == [7, 8]
    assert before_end([1], ENDS) == []


# Images.


def test_images_are_dropped_once_they_are_encoded() -> None:
    first, second = placed(2, 3, "a1"), placed(6, 2, "b2")
    sequence = make_sequence(10, images=[first, second])
    assert sequence.images_within(0, 6) == [first]
    assert sequence.images_within(0, 7) == [first, second]
    sequence.start(0, 2)
    assert sequence.images == (first, second)
    sequence.encoded(3)
    assert sequence.images == (second,)
    sequence.encoded(5)
    assert sequence.images == ()


@pytest.mark.parametrize(("limit", "skip", "count"), [(9, 0, 9), (1, 0, 1), (2, 0, 2), (4, 0, 2), (5, 0, 5), (2, 2, 0)])
def test_a_chunk_ends_before_an_image_that_does_not_fit(limit: int, skip: int, count: int) -> None:
    sequence = make_sequence(9, images=[placed(2, 3)])
    assert sequence.chunk(limit, skip) == count


def test_an_image_stands_for_what_it_shows() -> None:
    shown = [make_sequence(6, images=[placed(2, 3, digest)]) for digest in ("a1", "a1", "b2")]
    same, again, other = (list(sequence.identities) for sequence in shown)
    assert same == again != other
    assert same[:2] == [30, 31]
    assert same[5:] == [35]
    assert all(identity < 0 for identity in same[2:5])
    shown[0].tokens.extend([7, 8])
    assert shown[0].identities[-2:] == [7, 8]


def test_usage_counts_what_was_kept() -> None:
    sequence = make_sequence(5)
    sequence.detokenizer.add([40, 41], last=True)
    usage = sequence.usage()
    assert (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens) == (5, 2, 0)


def test_a_writers_pass_is_counted_with_both_drafts() -> None:
    sequence = make_sequence(10, room=40, writer=make_writer())
    beside = CANVAS + (CANVAS - 1) + 3 * 16  # A canvas and a draft, and each may begin at a multiple of 16.
    assert (sequence.capacity, sequence.active) == (10 + 40 + beside, CANVAS)
    sequence.start(0, 0)
    sequence.encoded(10)
    sequence.tokens.extend([7, 8, 9])
    # The second draft is encoded after the three known tokens, too.
    assert sequence.active == CANVAS + 2 * (CANVAS - 1) + 3


def test_keys_of_another_draft_are_adopted_once() -> None:
    sequence = make_sequence(10, room=40, writer=make_writer())
    sequence.start(0, 0)
    sequence.encoded(10)
    sequence.tokens.append(7)
    sequence.encoded(1)
    sequence.written(Accepted(1, (5, 6, 7), 2, (0, 1, 2), ended=False, cut=False), 1, 1)
    assert (sequence.committed, sequence.pending, sequence.unadopted, sequence.final) == (13, 1, 3, 10)
    sequence.encoded(1)
    assert (sequence.unadopted, sequence.final) == (0, 14)
