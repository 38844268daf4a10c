"""What tests of grammars share: matchers and cursors on a tiny tokenizer, and distributions that are known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_core import Grammar
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.denoise_settings import DenoiseSettings
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.grammar_cursor import GrammarCursor
from dgemma_core.structured.matcher import GrammarCompiler, Matcher

END = 1


def matcher_of(alphabet: Alphabet, grammar: Grammar, begun: bytes = b"") -> Matcher:
    """A grammar's matcher after some bytes."""
    matcher = GrammarCompiler(alphabet).matcher(grammar)
    matcher.consume(letters(alphabet, begun))
    return matcher


def cursor_of(
    alphabet: Alphabet, grammar: Grammar, room: int, ends: frozenset[int] | None = None, begun: bytes = b""
) -> GrammarCursor:
    return GrammarCursor(matcher_of(alphabet, grammar, begun), alphabet, (), room, ends)


def letters(alphabet: Alphabet, text: bytes) -> list[int]:
    """A token for every byte."""
    token_of = {byte: token for token, byte in alphabet.byte_of.items()}
    return [token_of[byte] for byte in text]


def rows_for(alphabet: Alphabet, length: int, tokens: list[int]) -> Tensor:
    """Logits of so many positions that are sure of these tokens."""
    logits = torch.zeros(length, alphabet.vocab_size)
    logits[torch.arange(len(tokens)), torch.tensor(tokens)] = 12.0
    return logits


def row(alphabet: Alphabet, of_bytes: dict[bytes, float], other: float = -20.0, end: float | None = None) -> Tensor:
    """Logits of one position by byte."""
    logits = torch.full((alphabet.vocab_size,), other)
    for byte, value in of_bytes.items():
        logits[letters(alphabet, byte)] = value
    if end is not None:
        logits[END] = end
    return logits


class GivenRows:
    """Distributions of positions that are known beforehand."""

    def __init__(self, logits: Tensor) -> None:
        self._given = logits

    def logits(self, start: int, stop: int) -> Tensor:
        return self._given[start:stop]

    def label_logits(self, positions: Sequence[int], labels: Sequence[Sequence[int]]) -> list[Tensor]:
        return [self._given[at, list(tokens)] for at, tokens in zip(positions, labels, strict=True)]


def drafted_canvas(alphabet: Alphabet, draft: list[int], logits: Tensor, steps: int = 48) -> Canvas:
    """A canvas after one step of so many that drafted these tokens with these distributions."""
    length = len(draft)
    settings = DenoiseSettings(length, steps, 0.1, 0.4, 0.8, 1, 0.02, True)
    generator = torch.Generator()
    canvas = Canvas(settings, alphabet.vocab_size, torch.tensor([END]), length, generator)
    tokens = torch.tensor(draft)
    canvas.advance(tokens, tokens, torch.distributions.Categorical(logits=logits).entropy())
    return canvas
