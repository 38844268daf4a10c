"""A tokenizer as grammars see it: the bytes of every token, and the token of every single byte."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Alphabet:
    """The tokens that grammars are matched in.

    Args:
        tokenizer: the checkpoint's fast tokenizer.
        vocab_size: rows of the output embedding.
        end_ids: tokens that end an answer.
        controls: control tokens; by default those that llguidance takes for special. Other added tokens are text.
        encode: text to token ids without control tokens; by default llguidance's own way.

    Attributes:
        inner: the tokenizer in llguidance's form.
        byte_of: for every token of one byte, that byte.
        delimiters: control tokens and tokens with a quote, which begin and end free text.
    """

    def __init__(
        self,
        tokenizer: Any,
        vocab_size: int,
        end_ids: frozenset[int],
        controls: Collection[int] | None = None,
        encode: Callable[[str], list[int]] | None = None,
    ) -> None:
        import llguidance.hf

        self.vocab_size = vocab_size
        self.end_ids = end_ids
        ends = sorted(end_ids)
        self.inner = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=ends)
        if controls is not None and encode is not None:
            # llguidance takes every added token like "<table>" for special, and spells "<turn|>" as the control token.
            table = _Table.of(self.inner, tokenizer, controls, encode)
            self.inner = llguidance.LLTokenizer(llguidance.TokenizerWrapper(table), n_vocab=vocab_size, eos_token=ends)
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


@dataclass(frozen=True)
class _Table:
    """A tokenizer in the form that llguidance wraps.

    Attributes:
        tokens: the bytes of every token.
        special_token_ids: control tokens.
        eos_token_id: the first token that ends an answer.
        bos_token_id: the token that begins a text, if there is one.
        encode: text to token ids without control tokens.
    """

    tokens: list[bytes]
    special_token_ids: list[int]
    eos_token_id: int
    bos_token_id: int | None
    encode: Callable[[str], list[int]]

    @classmethod
    def of(cls, inner: Any, tokenizer: Any, controls: Collection[int], encode: Callable[[str], list[int]]) -> _Table:
        """The table of a tokenizer that llguidance has read, with all added tokens but the control tokens as text."""
        tokens = [inner.decode_bytes([token]) for token in range(inner.vocab_size)]
        backend = tokenizer.backend_tokenizer
        texts = {
            token: added.content
            for token, added in backend.get_added_tokens_decoder().items()
            if token not in controls and token < len(tokens)
        }
        for token, content in texts.items():
            tokens[token] = (backend.decoder.decode([content]) if backend.decoder else content).encode()
        special = [token for token in range(len(tokens)) if token not in texts and inner.is_special_token(token)]
        return cls(tokens, special, inner.eos_token, tokenizer.bos_token_id, encode)

    def __call__(self, text: bytes | str) -> list[int]:
        return self.encode(text.decode() if isinstance(text, bytes) else text)
