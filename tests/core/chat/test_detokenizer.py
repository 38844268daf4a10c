"""Answers become text block by block, with stop strings that may span blocks."""

from __future__ import annotations

import random

from dgemma_core.chat.detokenizer import Detokenizer
from tests.checkpoints import make_tokenizer

TOKENIZER = make_tokenizer()


def feed(text: str, stop: tuple[str, ...], sizes: list[int]) -> tuple[list[str], Detokenizer, bool]:
    """Feed a text's tokens in blocks of the given sizes, the rest as the last block."""
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    detokenizer, texts, at = Detokenizer(TOKENIZER, stop), [], 0
    for index in range(len(sizes) + 1):
        last = index == len(sizes)
        part = ids[at:] if last else ids[at : at + sizes[index]]
        at += len(part)
        new, _, stopped = detokenizer.add(part, last)
        texts.append(new)
        if stopped:
            return texts, detokenizer, True
    return texts, detokenizer, False


def test_blocks_join_to_the_text_at_any_cut() -> None:
    text = "quick été 你好 — fox 🦊 jumps 123"
    chooser = random.Random(0)
    for _ in range(100):
        sizes = [chooser.randint(1, 6) for _ in range(chooser.randint(0, 8))]
        texts, detokenizer, stopped = feed(text, ("never",), sizes)
        assert ("".join(texts), stopped) == (text, False)
        assert detokenizer.text == text
        assert TOKENIZER.decode(detokenizer.kept) == text
        assert "\ufffd" not in "".join(texts)


def test_stop_string_across_blocks_is_cut_and_never_shown() -> None:
    text = "the quick brown STOP HERE lazy dog"
    chooser = random.Random(1)
    for _ in range(100):
        sizes = [chooser.randint(1, 5) for _ in range(chooser.randint(1, 8))]
        texts, detokenizer, stopped = feed(text, ("lazy", "STOP HERE"), sizes)
        assert stopped
        assert "".join(texts) == detokenizer.text == "the quick brown "
        assert TOKENIZER.decode(detokenizer.kept).startswith("the quick brown ")


def test_what_only_looked_like_a_stop_is_given_out() -> None:
    texts, _, stopped = feed("abcabcabd end", ("abcabd_",), [3, 3])
    assert not stopped
    assert "".join(texts) == "abcabcabd end"
