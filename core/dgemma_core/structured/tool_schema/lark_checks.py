"""Questions about a piece of Lark, answered by llguidance."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def problem_of(lark: str) -> str:
    """Llguidance's error or warning about a grammar; empty if there is none."""
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_lark(lark))
    return "; ".join(str(m).strip().splitlines()[0] for m in messages) if failed or messages else ""


@lru_cache(maxsize=1024)
def matches_text(terminal: str) -> bool | None:
    """Whether a terminal matches any text but the empty one; None if it matches nothing at all."""
    from llguidance import LLMatcher, LLTokenizer

    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(f"start: T\nT: {terminal}"), log_level=0)
    if matcher.is_error():
        return True  # The error is reported when the whole grammar is compiled.
    mask = int.from_bytes(matcher.compute_bitmask(), "little") & ~(1 << tokenizer.eos_token)
    if matcher.is_error() or not mask:  # llguidance treats a state in which nothing can follow as an error.
        return False if not matcher.is_error() and matcher.is_accepting() else None
    return True


def takes_text(terminal: str, text: str) -> bool:
    """Whether a terminal matches a text."""
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(f"start: T\nT: {terminal}"), log_level=0)
    spelled = list(text.encode())
    return bool(matcher.try_consume_tokens(spelled) == len(spelled) and matcher.is_accepting())
