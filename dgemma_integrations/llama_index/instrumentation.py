"""LlamaIndex's decorators with types. Its own turn a method into ``Any``, so that checkers miss slips in its use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index_instrumentation import get_dispatcher

Method = TypeVar("Method", bound=Callable[..., Any])


def chat_event(method: Method) -> Method:
    """``llm_chat_callback()``: the method fires a chat event."""
    return cast(Method, llm_chat_callback()(method))


def completion_event(method: Method) -> Method:
    """``llm_completion_callback()``: the method fires a completion event."""
    return cast(Method, llm_completion_callback()(method))


def span(method: Method) -> Method:
    """``dispatcher.span``: the method is a span of the dispatcher of its module."""
    return cast(Method, get_dispatcher(method.__module__).span(method))
