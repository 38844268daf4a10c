"""Byte-level BPE with single digits and Gemma 4's control tokens, trained on generated text."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .config import EMBEDDED
from .data.lexicon import COMMON, SYLLABLES, WORDS, Source
from .data.mixture import DEFAULT_MIX, draw_tree

CONTROL = [
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>",
    "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
    "<|image>", "<image|>", "<|image|>",
]  # fmt: skip
# Words (with the blank before them), parts of camelCase names, runs of capitals, single digits, signs.
PIECES = r" ?\p{Lu}?\p{Ll}+| ?\p{Lu}+(?!\p{Ll})| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _text(trees: int, seed: int) -> Iterator[str]:
    source = Source(random.Random(seed))
    for _ in range(trees):
        for number, branch in enumerate(draw_tree(source, DEFAULT_MIX, source.rng.random())):
            if branch.raw is not None:
                yield branch.raw
            elif number == 0:  # the context is shared: count it once
                yield from (str(m["content"]) for m in branch.messages)
                if branch.tools:
                    yield str(branch.tools)
            else:
                yield str(branch.messages[-1]["content"])[-80:]
            yield branch.answer
            yield from (str(c["function"]) for c in branch.calls)
    yield from WORDS
    # Every common word becomes one token, with and without a blank before it, and so does every syllable.
    for _ in range(2000):
        yield from COMMON
        yield " " + " ".join(COMMON)
    for _ in range(3000):
        yield from SYLLABLES
        yield " " + " ".join(s.capitalize() for s in SYLLABLES)


def train_tokenizer(vocabulary: int, trees: int = 12000, seed: int = 1) -> PreTrainedTokenizerFast:
    """Trains the tokenizer and attaches the chat template that ships with the embedded checkpoint."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_text(trees, seed), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<turn|>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        additional_special_tokens=[t for t in CONTROL[5:] if t != "<turn|>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = (EMBEDDED / "chat_template.jinja").read_text(encoding="utf-8")
    return tokenizer
