"""Forms: questions and blanks in tokens, and where in a blank the options part."""

from __future__ import annotations

import pytest

from dgemma_core import Question
from dgemma_core.structured.forms import Blank, Fork, Form, FormWriter
from tests.checkpoints import make_tokenizer
from tests.core.structured.questions import IS_IT, SPELLINGS, WHICH, WRITER

TOKENIZER = make_tokenizer()


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


REAL = FormWriter(encode, end_id=4, pad_id=0)
QUESTIONS = [
    Question("choice", "Which  animal?", ["fox", "dog", "fox terrier", "ox"]),
    Question("bool", "Is it quick?"),
    Question("score", "How lazy?", {"low": "not", "high": "very"}),
]


def options_read(form: Form, blank: Blank) -> list[str]:
    """The options of a blank, found by their tokens at the forks alone."""
    texts = []
    for path in blank.paths:
        decided = {form.forks[fork].position: form.forks[fork].token_ids[token] for fork, token in path}
        matching = [o for o in blank.options if all(o[p - blank.start] == t for p, t in decided.items())]
        assert len(matching) == 1
        texts.append(TOKENIZER.decode(matching[0], skip_special_tokens=True).strip())
    return texts


def test_a_form_reads_as_text() -> None:
    text = TOKENIZER.decode(REAL.write(QUESTIONS).tokens)
    assert text.replace("<pad>", "") == "1. Which animal? fox\n\n2. Is it quick? yes\n3. How lazy? low\n<turn|>"


def test_forks_tell_the_options_apart() -> None:
    form = REAL.write(QUESTIONS)
    assert [options_read(form, blank) for blank in form.blanks] == [
        ["fox", "dog", "fox terrier", "ox"],
        ["yes", "no"],
        ["low", "high"],
    ]


def test_only_what_depends_on_the_answers_is_open() -> None:
    form = REAL.write(QUESTIONS)
    inside = {blank.start + place for blank in form.blanks for place in range(len(blank.options[0]))}
    assert {fork.position for fork in form.forks} <= set(form.open_positions()) <= inside
    assert form.open_positions() == sorted(form.open_positions())


def test_lines_take_as_many_positions_as_they_say() -> None:
    lines = [REAL.line(number, question) for number, question in enumerate(QUESTIONS, 1)]
    form = REAL.join(lines)
    assert form == REAL.write(QUESTIONS)
    assert sum(map(len, lines)) + 1 == len(form.tokens)


def test_a_question_asked_in_the_prompt_has_only_its_number() -> None:
    text = TOKENIZER.decode(REAL.write(QUESTIONS[:1], spelled_out=True).tokens)
    assert text.replace("<pad>", "") == "1. fox\n<turn|>"


def test_options_part_in_a_trie() -> None:
    form = WRITER.write([WHICH, IS_IT])
    assert form.tokens == (1, 10, 11, 4, 2, 20, 9)
    assert [blank.start for blank in form.blanks] == [1, 5]
    assert form.blanks[0].options == ((10, 11, 4), (10, 12, 13), (10, 12, 4))
    # After 10 either 11 or 12; after 10 12 either 13 or the line break that ends the shorter option.
    assert form.forks == (Fork(2, (11, 12)), Fork(3, (13, 4)), Fork(5, (20, 21)))
    assert form.blanks[0].paths == (((0, 0),), ((0, 1), (1, 0)), ((0, 1), (1, 1)))
    assert form.open_positions() == [2, 3, 5]


def test_long_options_are_cut_where_they_are_told_apart() -> None:
    words = {f" {name}": [*[5] * 20, last, *[6] * 30] for name, last in (("x", 1), ("y", 2))}
    writer = FormWriter({**SPELLINGS, **words}.__getitem__, end_id=9, pad_id=0)
    (blank,) = writer.write([Question("choice", "Which?", ["x", "y"])]).blanks
    assert [len(ids) for ids in blank.options] == [21, 21]
    writer = FormWriter({**SPELLINGS, " b": [10, 11]}.__getitem__, end_id=9, pad_id=0)
    with pytest.raises(ValueError, match="alike"):
        writer.write([WHICH])
