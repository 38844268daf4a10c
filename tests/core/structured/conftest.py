"""Fixtures of the tests of structured output."""

from __future__ import annotations

import pytest

from dgemma_core.structured.alphabet import Alphabet
from tests.checkpoints import make_tokenizer
from tests.core.structured.grammars import END


@pytest.fixture(scope="session")
def alphabet() -> Alphabet:
    """The tiny byte-level tokenizer, with one end token."""
    tokenizer = make_tokenizer()
    return Alphabet(tokenizer, len(tokenizer), frozenset({END}))
