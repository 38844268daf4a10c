"""A tokenizer as grammars see it: the bytes of every token, and the token of every single byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Alphabet:
    """The tokens that grammars are matched in.

    Args:
        tokenizer: the checkpoint's fast tokenizer.
        vocab_size: rows of the output embedding.
        end_ids: tokens that end an answer.

    Attributes:
        inner: the tokenizer in llguidance's form.
        byte_of: for every token of one byte, that byte.
        delimiters: control tokens and tokens with a quote, which begin and end free text.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, end_ids: frozenset[int]) -> None:
        import llguidance.hf

        self.vocab_size = vocab_size
        self.end_ids = end_ids
        self.inner = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=sorted(end_ids))
        self.byte_of: dict[int, int] = {}
        specials = []
        delimiters = []
        for token in range(vocab_size):
            if self.inner.is_special_token(token):
                specials.append(token)
                continue
            spelled = self.inner.decode_bytes([token])
            if b'"' in spelled:
                delimiters.append(token)
            if len(spelled) == 1:
                self.byte_of[token] = spelled[0]
        self.delimiters = frozenset([*specials, *delimiters])
        # Arrays, to index masks with.
        self._byte_tokens = np.array(list(self.byte_of), dtype=np.int64)
        self._special_tokens = np.array([t for t in specials if t not in end_ids], dtype=np.int64)

    def spell(self, text: bytes) -> list[int]:
        """The tokenizer's token ids for bytes; spellings of control tokens stay plain characters."""
        return list(self.inner.tokenize_bytes(text))

    def bytes_of(self, tokens: Sequence[int]) -> bytes:
        """The bytes of tokens."""
        return bytes(self.inner.decode_bytes(list(tokens)))

    def is_special(self, token: int) -> bool:
        """Whether a token is a control token."""
        return bool(self.inner.is_special_token(token))

    def bytes_in(self, mask: NDArray[np.bool_]) -> dict[int, int]:
        """The single bytes that a mask (bool ``[vocab]``) allows, and their tokens."""
        tokens = self._byte_tokens[mask[self._byte_tokens]].tolist()
        return {self.byte_of[token]: token for token in tokens}

    def specials_in(self, mask: NDArray[np.bool_]) -> list[int]:
        """The control tokens that a mask (bool ``[vocab]``) allows, without those that end an answer."""
        found: list[int] = self._special_tokens[mask[self._special_tokens]].tolist()
        return found
