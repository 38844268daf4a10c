"""A chat model with settings bound to it, which are kept by what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding

# What an answer is, not how it is made. A structured answer has its own.
_OF_THE_ANSWER = frozenset(
    {"tools", "tool_choice", "parallel_tool_calls", "response_format", "grammar", "ls_structured_output_format"}
)


class BoundChat(RunnableBinding[LanguageModelInput, AIMessage]):
    """What ``ChatDiffusionGemma.bind`` returns.

    LangChain's own binding hands ``bind_tools`` and ``with_structured_output`` on to the model, without what is bound.
    """

    @classmethod
    def lc_id(cls) -> list[str]:
        """As LangChain's own binding, so that stored chains load."""
        return RunnableBinding.lc_id()

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """``bind_tools`` of the model, with the bound settings."""
        model: Any = self.bound
        made: Runnable[LanguageModelInput, AIMessage] = model.bind_tools(tools, **{**self.kwargs, **kwargs})
        return made.with_config(self.config) if self.config else made

    def with_structured_output(self, schema: Any = None, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        """``with_structured_output`` of the model, with the bound settings; bound tools are left out."""
        model: Any = self.bound
        settings = {name: value for name, value in self.kwargs.items() if name not in _OF_THE_ANSWER}
        made: Runnable[LanguageModelInput, Any] = model.with_structured_output(schema, **kwargs).bind(**settings)
        return made.with_config(self.config) if self.config else made
