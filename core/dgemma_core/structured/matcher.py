"""A grammar's state while tokens are matched against it, behind an interface; llguidance stands behind it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dgemma_core.api.grammar import Grammar
from dgemma_core.errors import GrammarError

_KEPT = 256  # Compiled grammars per engine.


class Matcher(Protocol):
    """Where in a grammar a text stands. Token ids in, token ids out; end tokens are not part of the text."""

    @property
    def accepting(self) -> bool:
        """Whether the text so far is complete."""

    @property
    def stopped(self) -> bool:
        """Whether no further token can follow."""

    def accepts(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` could follow, from the first on. Changes nothing."""

    def consume(self, tokens: Sequence[int]) -> None:
        """Let ``tokens`` follow; all of them must be accepted."""

    def rollback(self, count: int) -> None:
        """Take back the last ``count`` tokens."""

    def allowed(self) -> NDArray[np.bool_]:
        """``[vocab]``: which tokens could follow, end tokens among them where the text is complete."""

    def forced(self) -> list[int]:
        """Tokens that must follow, because nothing else can."""

    def copy(self) -> Matcher:
        """An independent matcher in the same state."""


class LLGuidanceMatcher:
    """:class:`Matcher` over an ``llguidance.LLMatcher``."""

    def __init__(self, inner: Any, vocab_size: int) -> None:
        self._inner = inner
        self._vocab_size = vocab_size

    @property
    def accepting(self) -> bool:
        """Whether the text so far is complete."""
        return bool(self._inner.is_accepting())

    @property
    def stopped(self) -> bool:
        """Whether no further token can follow."""
        return bool(self._inner.is_stopped())

    def accepts(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` could follow."""
        return int(self._inner.validate_tokens(list(tokens))) if tokens and not self.stopped else 0

    def consume(self, tokens: Sequence[int]) -> None:
        """Let ``tokens`` follow."""
        taken = self._inner.try_consume_tokens(list(tokens)) if tokens else 0
        if taken != len(tokens):
            raise RuntimeError(f"the grammar refused token {taken} of {list(tokens)}: {self._inner.get_error()}")

    def rollback(self, count: int) -> None:
        """Take back the last ``count`` tokens."""
        if count and not self._inner.rollback(count):
            raise RuntimeError(f"the matcher cannot take back {count} tokens: {self._inner.get_error()}")

    def allowed(self) -> NDArray[np.bool_]:
        """``[vocab]``: which tokens could follow."""
        bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)

    def forced(self) -> list[int]:
        """Tokens that must follow."""
        if self.stopped:
            return []
        # A forced text that spells a control token is proposed as that token, which does not fit.
        forced = list(self._inner.compute_ff_tokens())
        return forced[: self.accepts(forced)]

    def copy(self) -> LLGuidanceMatcher:
        """An independent matcher in the same state."""
        return LLGuidanceMatcher(self._inner.deep_copy(), self._vocab_size)


class Alphabet:
    """A tokenizer as grammars see it: the bytes of every token, and which token is which single byte.

    Args:
        tokenizer: the checkpoint's fast tokenizer.
        vocab_size: rows of the output embedding.
        end_ids: tokens that end an answer.

    Attributes:
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
        # The keys of `byte_of`, and control tokens that do not end an answer, to index masks with.
        self.byte_tokens = np.array(list(self.byte_of), dtype=np.int64)
        self.delimiters = frozenset([*specials, *delimiters])
        self.special_tokens = np.array([t for t in specials if t not in end_ids], dtype=np.int64)

    def spell(self, text: bytes) -> list[int]:
        """Token ids of bytes, control tokens left as characters."""
        return list(self.inner.tokenize_bytes(text))

    def bytes_of(self, tokens: Sequence[int]) -> bytes:
        """The bytes that tokens stand for."""
        return bytes(self.inner.decode_bytes(list(tokens)))

    def is_special(self, token: int) -> bool:
        """Whether a token is a control token."""
        return bool(self.inner.is_special_token(token))


class GrammarCompiler:
    """Matchers for one tokenizer; the most recently used grammars stay compiled. Thread-safe."""

    def __init__(self, alphabet: Alphabet) -> None:
        self.alphabet = alphabet
        self._compiled: OrderedDict[Grammar, LLGuidanceMatcher] = OrderedDict()
        self._lock = Lock()

    def matcher(self, grammar: Grammar) -> LLGuidanceMatcher:
        """A fresh matcher at the beginning of ``grammar``.

        Raises:
            GrammarError: it cannot be compiled for this tokenizer.
        """
        from llguidance import LLMatcher

        with self._lock:
            known = self._compiled.get(grammar)
            if known is not None:
                self._compiled.move_to_end(grammar)
                return known.copy()
        inner = LLMatcher(self.alphabet.inner, grammar.compiled(), log_level=0)
        if inner.is_error():
            raise GrammarError(f"this {grammar.kind} grammar cannot be used: {inner.get_error()}", grammar)
        made = LLGuidanceMatcher(inner, self.alphabet.vocab_size)
        with self._lock:
            self._compiled[grammar] = made
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return made.copy()
