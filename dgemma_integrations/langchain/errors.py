"""Errors that are both this engine's and LangChain's, so that code written for either catches them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import ContextOverflowError as LangChainContextOverflowError

from dgemma_core.errors import ContextOverflowError as EngineContextOverflowError


class ContextOverflowError(EngineContextOverflowError, LangChainContextOverflowError):
    """Prompt plus answer do not fit the context window; carries the numbers of the engine's error.

    LangChain's summarization middleware catches ``langchain_core.exceptions.ContextOverflowError`` and retries with a
    shorter history; everything else can go on catching ``dgemma_core.errors.ContextOverflowError``.
    """


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns the engine's context overflow into the one LangChain knows, too."""
    try:
        yield
    except EngineContextOverflowError as error:
        raise ContextOverflowError(error.prompt_tokens, error.max_new_tokens, error.context_window) from error
