"""A short ending: few tokens that complete a text from a grammar's state on.

A first search proceeds byte by byte and closes what is open as soon as the grammar allows it; a string that must not
end yet is filled with a text known to fit one of the schema's patterns. If that leads nowhere, the grammar's states are
searched breadth first. The ending found is a real one, so a budget that holds it can be kept. A shorter ending may
exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.closing import choose_byte, choose_control_token, choose_hint
from dgemma_core.structured.ending_search import search_states
from dgemma_core.structured.matcher import Matcher


def short_ending(matcher: Matcher, alphabet: Alphabet, limit: int, hints: Sequence[str] = ()) -> list[int] | None:
    """Tokens that complete the text, few of them.

    Args:
        matcher: the state to start from; it is not changed.
        alphabet: the tokenizer.
        limit: give up on endings of more than this many tokens.
        hints: texts that may complete a string, shortest first.

    Returns:
        Token ids without an end token (empty if the text is complete), or None if no ending was found.
    """
    if matcher.accepting:
        return []
    ending = _close_greedily(matcher.copy(), alphabet, limit, hints)
    if ending is None:
        ending = search_states(matcher, alphabet, limit)
    if ending is None:
        return None
    # The tokenizer's own spelling takes fewer tokens than single bytes.
    spelled = _respelled(ending, alphabet)
    if len(spelled) < len(ending) and matcher.accepts(spelled) == len(spelled):
        ending = spelled
    return ending if len(ending) <= limit else None


def _respelled(tokens: Sequence[int], alphabet: Alphabet) -> list[int]:
    """The same text in the tokenizer's own spelling; control tokens stay."""
    spelled: list[int] = []
    for special, run in groupby(tokens, alphabet.is_special):
        part = list(run)
        spelled.extend(part if special else alphabet.spell(alphabet.bytes_of(part)))
    return spelled


def _close_greedily(state: Matcher, alphabet: Alphabet, limit: int, hints: Sequence[str]) -> list[int] | None:
    """Always take the token that seems to lead to the end; None at a dead end or far beyond ``limit``."""
    ending: list[int] = []
    before: frozenset[int] = frozenset()  # bytes that were allowed at the last choice of a byte
    # The ending is spelled in bytes here, and a token has several of them.
    while len(ending) <= 4 * limit + 64:
        if state.accepting:
            return ending
        chosen = state.forced()
        if not chosen:
            allowed = state.allowed()
            tokens = alphabet.bytes_in(allowed)
            special = choose_control_token(state, alphabet, alphabet.specials_in(allowed), bool(tokens))
            if special is not None:
                chosen = [special]
            elif not tokens:
                return None
            else:
                chosen = choose_hint(state, alphabet, tokens, hints)
                if not chosen:
                    chosen = [tokens[choose_byte(state, alphabet, tokens, before)]]
                    before = frozenset(tokens)
        state.consume(chosen)
        ending.extend(chosen)
    return None
