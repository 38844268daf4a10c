"""Errors a caller can catch.

An error while loading or generating derives from :class:`DGemmaError`, a ``RuntimeError``. It is never a ``ValueError``
or ``TypeError``, because LlamaIndex's response synthesizers swallow those two and answer "Empty Response". A wrong
*argument* (a bad ``SamplingParams``, an empty prompt) is a plain ``ValueError`` at the call.
"""

from __future__ import annotations

import sys
from typing import Any


class DGemmaError(RuntimeError):
    """Root of all errors raised while loading a checkpoint or generating."""

    def to_dict(self) -> dict[str, Any]:
        """Class, text and attributes as plain JSON, without the cause; ``api.error_from_dict`` reads it."""
        return {"type": type(self).__name__, "message": str(self)}


class ContextOverflowError(DGemmaError):
    """Prompt plus answer do not fit the context window. Raised before any work is done.

    Attributes:
        prompt_tokens: tokens in the rendered prompt.
        max_new_tokens: tokens asked for.
        context_window: tokens the checkpoint (or ``LoadSpec.max_context``) allows for both together.
    """

    def __init__(self, prompt_tokens: int, max_new_tokens: int, context_window: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.max_new_tokens = max_new_tokens
        self.context_window = context_window
        super().__init__(
            f"context length exceeded: the prompt has {prompt_tokens} tokens and max_new_tokens is {max_new_tokens}, "
            f"together {prompt_tokens + max_new_tokens}, but the context window holds {context_window}. "
            + (
                "Shorten the prompt, or retrieve fewer passages."
                if prompt_tokens >= context_window
                else "Shorten the prompt, retrieve fewer passages, or lower max_new_tokens (max_tokens in an adapter)."
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Class, text and attributes as plain JSON; ``api.error_from_dict`` reads it."""
        return super().to_dict() | {
            "prompt_tokens": self.prompt_tokens,
            "max_new_tokens": self.max_new_tokens,
            "context_window": self.context_window,
        }

    def __reduce__(self) -> tuple[type[ContextOverflowError], tuple[int, int, int]]:
        return type(self), (self.prompt_tokens, self.max_new_tokens, self.context_window)


class QueueFullError(DGemmaError):
    """The engine's waiting queue is full (``LoadSpec.max_queue``). Nothing was queued."""


class RequestTimeoutError(DGemmaError, TimeoutError):
    """A request did not finish within its ``timeout`` (seconds)."""


class OutOfMemoryError(DGemmaError):
    """The weights do not fit into memory, or a request does not, although it ran alone with an empty prefix cache."""


class EngineClosedError(DGemmaError):
    """The engine was closed before or while the request ran."""


class EngineDeadError(DGemmaError):
    """The engine's worker thread ended unexpectedly; ``__cause__`` holds the reason."""


class AnswerCutError(DGemmaError):
    """A structured answer lacks something for want of room, and the caller asked for an error (``on_length="raise"``).

    Attributes:
        text: the answer as JSON. It is valid, but values are shortened or missing.
    """

    def __init__(self, message: str, text: str = "") -> None:
        self.text = text
        super().__init__(message)

    def to_dict(self) -> dict[str, Any]:
        """Class, text and attributes as plain JSON; ``api.error_from_dict`` reads it."""
        return super().to_dict() | {"text": self.text}

    def __reduce__(self) -> tuple[type[AnswerCutError], tuple[str, str]]:
        return type(self), (str(self), self.text)


class CheckpointError(DGemmaError):
    """A checkpoint was not found, or this engine cannot run it. The message says what was looked for."""


class GrammarError(ValueError):
    """A grammar cannot be used: it is malformed, it is unsatisfiable, or a part of it cannot be enforced.

    A grammar is an argument, so this is a ``ValueError``. It is raised before any work is done.

    Attributes:
        grammar: the ``Grammar``, or None if none could be made.
    """

    def __init__(self, message: str, grammar: Any = None) -> None:
        self.grammar = grammar
        super().__init__(message)

    def to_dict(self) -> dict[str, Any]:
        """Class, text and attributes as plain JSON; ``api.error_from_dict`` reads it."""
        grammar = None if self.grammar is None else self.grammar.to_dict()
        return {"type": type(self).__name__, "message": str(self), "grammar": grammar}

    def __reduce__(self) -> tuple[type[GrammarError], tuple[str, object]]:
        return type(self), (str(self), None)


class AnswerBudgetError(GrammarError):
    """``max_new_tokens`` is too small for the shortest answer that fits the grammar.

    Attributes:
        shortest: tokens of the shortest answer that was found; None if the search found none.
        max_new_tokens: tokens allowed.
    """

    def __init__(self, shortest: int | None, max_new_tokens: int, grammar: Any = None) -> None:
        self.shortest, self.max_new_tokens = shortest, max_new_tokens
        super().__init__(
            f"max_new_tokens={max_new_tokens}: "
            + (
                "no complete answer to this grammar was found; "
                if shortest is None
                else f"the shortest answer that fits the grammar takes {shortest} tokens; "
            )
            + "raise max_new_tokens (max_tokens in an adapter) or simplify the grammar",
            grammar,
        )

    def to_dict(self) -> dict[str, Any]:
        """Class, text and attributes as plain JSON; ``api.error_from_dict`` reads it."""
        return super().to_dict() | {"shortest": self.shortest, "max_new_tokens": self.max_new_tokens}

    def __reduce__(self) -> tuple[type[GrammarError], tuple[object, ...]]:  # type: ignore[override]
        return type(self), (self.shortest, self.max_new_tokens)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    # torch is not imported here: if it is not loaded, no error can be one of torch's.
    of_torch: type[BaseException] | tuple[()] = getattr(sys.modules.get("torch"), "OutOfMemoryError", ())
    if isinstance(error, (MemoryError, of_torch)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
