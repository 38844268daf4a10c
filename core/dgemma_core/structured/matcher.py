"""A grammar's state while tokens are matched against it: the interface, and its implementation by llguidance."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dgemma_core.api.compiling import made
from dgemma_core.api.grammar import Grammar
from dgemma_core.errors import GrammarError
from dgemma_core.structured.alphabet import Alphabet

_KEPT = 256  # compiled grammars per engine


class Matcher(Protocol):
    """The state of a grammar after some text. The text is given as token ids, without end tokens."""

    @property
    def accepting(self) -> bool:
        """Whether the text so far is complete."""

    @property
    def stopped(self) -> bool:
        """Whether no further token can follow."""

    def accepts(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` could follow, from the first on. Changes nothing."""

    def consume(self, tokens: Sequence[int]) -> None:
        """Append ``tokens`` to the text; all of them must be accepted."""

    def rollback(self, count: int) -> None:
        """Remove the last ``count`` tokens."""

    def allowed(self) -> NDArray[np.bool_]:
        """The tokens that may come next, end tokens among them where the text is complete: bool ``[vocab]``."""

    def forced(self) -> list[int]:
        """The tokens that must come next, as far as there is only one possibility."""

    def copy(self) -> Matcher:
        """An independent matcher in the same state."""


class LLGuidanceMatcher:
    """:class:`Matcher` over an ``llguidance.LLMatcher``.

    Args:
        inner: the ``LLMatcher``.
        alphabet: the tokenizer.
    """

    def __init__(self, inner: Any, alphabet: Alphabet) -> None:
        self._inner = inner
        self._alphabet = alphabet

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
        """Append ``tokens`` to the text."""
        taken = self._inner.try_consume_tokens(list(tokens)) if tokens else 0
        if taken != len(tokens):
            raise RuntimeError(f"the grammar refused token {taken} of {list(tokens)}: {self._inner.get_error()}")

    def rollback(self, count: int) -> None:
        """Remove the last ``count`` tokens."""
        if count and not self._inner.rollback(count):
            raise RuntimeError(f"the matcher cannot take back {count} tokens: {self._inner.get_error()}")

    def allowed(self) -> NDArray[np.bool_]:
        """The tokens that may come next: bool ``[vocab]``."""
        bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=self._alphabet.vocab_size, bitorder="little").view(np.bool_)
        # Where a text like "<|think|>" must follow, llguidance allows the control token alone, and then refuses it.
        refused = [token for token in self._alphabet.specials_in(allowed) if not self.accepts([token])]
        if refused:
            allowed[refused] = False
            allowed[self.forced()[:1]] = True
        return allowed

    def forced(self) -> list[int]:
        """The tokens that must come next."""
        if self.stopped:
            return []
        forced = list(self._inner.compute_ff_tokens())
        fitting = self.accepts(forced)
        if forced and not fitting:
            # llguidance spells a forced text like "<|think|>" with the control token, which its grammar then refuses.
            # A control token that is meant has the byte 255 before it.
            token_of = {byte: token for token, byte in self._alphabet.byte_of.items()}
            forced = [token_of[byte] for byte in self._inner.compute_ff_bytes().split(b"\xff")[0]]
            fitting = self.accepts(forced)
        return forced[:fitting]

    def copy(self) -> LLGuidanceMatcher:
        """An independent matcher in the same state."""
        return LLGuidanceMatcher(self._inner.deep_copy(), self._alphabet)


class GrammarCompiler:
    """Makes matchers for one tokenizer. The most recently used grammars stay compiled. Thread-safe.

    Args:
        alphabet: the tokenizer.
    """

    def __init__(self, alphabet: Alphabet) -> None:
        self.alphabet = alphabet
        self._compiled: OrderedDict[Grammar, LLGuidanceMatcher] = OrderedDict()
        self._lock = Lock()

    def matcher(self, grammar: Grammar) -> LLGuidanceMatcher:
        """A fresh matcher at the beginning of ``grammar``.

        Raises:
            GrammarError: it cannot be compiled for this tokenizer.
        """
        with self._lock:
            known = self._compiled.get(grammar)
            if known is not None:
                self._compiled.move_to_end(grammar)
                return known.copy()
        inner = made(self.alphabet.inner, grammar.compiled())
        if inner.is_error():
            raise GrammarError(f"this {grammar.kind} grammar cannot be used: {inner.get_error()}", grammar)
        matcher = LLGuidanceMatcher(inner, self.alphabet)
        with self._lock:
            self._compiled[grammar] = matcher
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return matcher.copy()
