"""Errors that belong to both this engine and LangChain, so that code for either one catches them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.exceptions import ContextOverflowError as LangChainContextOverflowError

from dgemma_core.errors import ContextOverflowError as EngineContextOverflowError


class ContextOverflowError(EngineContextOverflowError, LangChainContextOverflowError):
    """Prompt plus answer do not fit the context window. Has the attributes of the engine's error.

    LangChain's summarization middleware catches ``langchain_core.exceptions.ContextOverflowError`` and tries again with
    a shorter history. Other code can catch ``dgemma_core.errors.ContextOverflowError``.
    """


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the engine's context overflow into the one that LangChain knows as well."""
    try:
        yield
    except EngineContextOverflowError as error:
        raise ContextOverflowError(error.prompt_tokens, error.max_new_tokens, error.context_window) from error
