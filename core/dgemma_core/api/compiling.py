"""llguidance's checks and matchers, with limits that fit schemas of thousands of keys and lists of many choices.

Its own limits are for servers that hold grammars of strangers. They would stop an answer in the middle: an object with
600 optional keys needs more than they allow.
"""

from __future__ import annotations

from typing import Any

# Imported here, because an import reads files, and the first grammar may be made on an event loop.
from llguidance import LLMatcher, LLParserLimits

from dgemma_core.api.deep_stack import with_deep_stack

_LIMITS = LLParserLimits(
    max_items_in_row=2_000_000,
    step_max_items=20_000_000,
    initial_lexer_fuel=100_000_000,
    step_lexer_fuel=50_000_000,
    max_grammar_size=20_000_000,
)


def checked(compiled: str) -> tuple[bool, list[str]]:
    """Whether llguidance refuses a grammar, and its errors and warnings.

    Args:
        compiled: the grammar in llguidance's own form.
    """

    def check() -> tuple[bool, list[str]]:
        failed, messages = LLMatcher.validate_grammar_with_warnings(compiled, limits=_LIMITS)
        return failed, [str(message).strip() for message in messages]

    return with_deep_stack(check, len(compiled))


def made(tokenizer: Any, compiled: str) -> Any:
    """An ``LLMatcher`` at the beginning of a grammar.

    Args:
        tokenizer: in llguidance's form.
        compiled: the grammar in llguidance's own form.
    """
    return with_deep_stack(lambda: LLMatcher(tokenizer, compiled, log_level=0, limits=_LIMITS), len(compiled))
