"""LlamaIndex's global settings, which programs set, are put back after each test and each module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import llama_index.core
import pytest
from llama_index.core import Settings


@contextmanager
def kept_settings() -> Iterator[None]:
    before, tokenizer = vars(Settings).copy(), llama_index.core.global_tokenizer
    yield
    vars(Settings).update(before)
    llama_index.core.global_tokenizer = tokenizer


@pytest.fixture(autouse=True, scope="module")
def _settings_of_the_module() -> Iterator[None]:
    with kept_settings():
        yield


@pytest.fixture(autouse=True)
def _settings_of_the_test() -> Iterator[None]:
    with kept_settings():
        yield
