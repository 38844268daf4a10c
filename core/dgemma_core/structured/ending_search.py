"""A breadth-first search through a grammar's states for the end of a text."""

from __future__ import annotations

from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.closing import PREFERRED
from dgemma_core.structured.matcher import Matcher

_MOST_MOVES = 20_000


def search_states(matcher: Matcher, alphabet: Alphabet, limit: int) -> list[int] | None:
    """Tokens that complete the text; two states that allow the same tokens are treated as one.

    Args:
        matcher: the state to start from; it is not changed.
        alphabet: the tokenizer.
        limit: tokens wanted at most; the result, spelled in bytes, may be longer than that.

    Returns:
        Token ids, or None if all states within reach, or too many of them, were searched in vain.
    """
    frontier: list[tuple[Matcher, list[int]]] = [(matcher.copy(), [])]
    seen: set[bytes] = set()
    moves = 0
    while frontier:
        following: list[tuple[Matcher, list[int]]] = []
        for state, taken in frontier:
            key = state.allowed().tobytes()
            if key in seen or len(taken) > 4 * limit:
                continue
            seen.add(key)
            for move in _moves(state, alphabet):
                moves += 1
                if moves > _MOST_MOVES:
                    return None
                ahead = state.copy()
                ahead.consume(move)
                if ahead.accepting:
                    return [*taken, *move]
                following.append((ahead, [*taken, *move]))
        frontier = following
    return None


def _moves(state: Matcher, alphabet: Alphabet) -> list[list[int]]:
    """The ways to continue: forced tokens, else control tokens and single bytes, those that lead to the end first."""
    forced = state.forced()
    if forced:
        return [forced]
    allowed = state.allowed()
    specials = [[token] for token in alphabet.specials_in(allowed)]
    tokens = alphabet.bytes_in(allowed)
    ordered = sorted(tokens, key=lambda byte: (byte not in PREFERRED, PREFERRED.find(byte), byte))
    return specials + [[tokens[byte]] for byte in ordered]
