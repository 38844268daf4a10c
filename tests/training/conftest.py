"""One small tokenizer for all tests of the recipe: training it takes seconds."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from training.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A vocabulary of 700, from the text of 60 trees."""
    return train_tokenizer(700, trees=60)
