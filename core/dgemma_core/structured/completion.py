"""A short way from a grammar's state to a complete text: the promise that an answer can still be finished in time.

The search runs byte by byte and walks greedily, closing what is open wherever that is allowed. A string that must not
end yet is filled with a text known to fit one of the schema's patterns. Where all that does not arrive, states are
searched breadth first, told apart by what they allow. The way found is a real one, so a budget that holds it can be
kept; now and then a shorter one exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from dgemma_core.structured.matcher import Alphabet, Matcher

_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FREE_TEXT = 20  # so many letters allowed: inside of a string
_AFTER_A_STRING = frozenset(b",}]:")
_QUOTE = ord('"')
# What closes or separates first, then the shortest values, then what opens something.
_PREFERRED = b"}],:0123456789\"ntf-[{"
_SEARCHED_STATES = 4000
_BRANCHES = 12


def short_completion(
    matcher: Matcher, alphabet: Alphabet, limit: int, hints: Sequence[str] = ()
) -> list[int] | None:
    """Tokens that complete the text, few of them.

    Args:
        matcher: the state to start from; it is not changed.
        alphabet: the tokenizer.
        limit: give up on ways of more than this many tokens.
        hints: texts that may complete a string, shortest first.

    Returns:
        Token ids without an end token (empty if the text is complete), or None if no way was found.
    """
    if matcher.accepting:
        return []
    way = _greedy(matcher.copy(), alphabet, limit, hints)
    if way is None:
        way = _search(matcher, alphabet, limit)
    if way is None:
        return None
    if not any(alphabet.is_special(token) for token in way):
        # The tokenizer's own spelling takes fewer tokens than single bytes.
        spelled = alphabet.spell(alphabet.bytes_of(way))
        if len(spelled) < len(way) and matcher.accepts(spelled) == len(spelled):
            way = spelled
    return way if len(way) <= limit else None


def _greedy(state: Matcher, alphabet: Alphabet, limit: int, hints: Sequence[str]) -> list[int] | None:
    way: list[int] = []
    before: frozenset[int] = frozenset()
    # A token has several bytes, and the way is spelled in bytes here.
    while len(way) <= 4 * limit + 64:
        if state.accepting:
            return way
        forced = state.forced()
        if forced:
            state.consume(forced)
            way.extend(forced)
            continue
        tokens = _by_byte(state, alphabet)
        if not tokens:
            special = next((int(t) for t in state.allowed().nonzero()[0] if int(t) not in alphabet.end_ids), None)
            if special is None:
                return None
            state.consume([special])
            way.append(special)
            continue
        hinted = _hint(state, alphabet, tokens, hints)
        if hinted:
            state.consume(hinted)
            way.extend(hinted)
            continue
        byte = _choose(state, tokens, before)
        state.consume([tokens[byte]])
        way.append(tokens[byte])
        before = frozenset(tokens)
    return None


def _by_byte(state: Matcher, alphabet: Alphabet) -> dict[int, int]:
    """Allowed single bytes and their tokens."""
    allowed = state.allowed()
    return {byte: token for token, byte in alphabet.byte_of.items() if allowed[token]}


def _hint(state: Matcher, alphabet: Alphabet, tokens: dict[int, int], hints: Sequence[str]) -> list[int]:
    """The shortest hint that fits here and ends the string; nothing where the string may end anyway."""
    if not hints or _QUOTE in tokens:
        return []
    for hint in hints:
        for text in (hint, f"{hint}a"):
            spelled = alphabet.spell(json.dumps(text, ensure_ascii=False)[1:].encode())
            if state.accepts(spelled) == len(spelled):
                return spelled
    return []


def _choose(state: Matcher, tokens: dict[int, int], before: frozenset[int]) -> int:
    if _QUOTE in tokens and _closes(state, tokens[_QUOTE]):
        return _QUOTE
    fresh = [byte for byte in tokens if byte not in before]
    if len(_LETTERS & tokens.keys()) >= _FREE_TEXT:
        # Inside of a string that must go on: what has just become possible leads on, the rest may be a loop.
        options: Iterable[int] = fresh or tokens
        return min(options, key=lambda byte: (byte in _LETTERS, byte))
    for byte in _PREFERRED:
        if byte in tokens:
            return byte
    return min(fresh or tokens)


def _closes(state: Matcher, quote: int) -> bool:
    """Whether a quote would end a string rather than begin one."""
    ahead = state.copy()
    ahead.consume([quote])
    if ahead.accepting:
        return True
    allowed = ahead.forced()[:1]
    if allowed:
        return True
    mask = ahead.allowed()
    return not mask[quote] or bool(mask.sum() < _FREE_TEXT)


def _search(matcher: Matcher, alphabet: Alphabet, limit: int) -> list[int] | None:
    """Breadth first over states; two states that allow the same are taken for one."""
    frontier: list[tuple[Matcher, list[int]]] = [(matcher.copy(), [])]
    seen: set[bytes] = set()
    while frontier and len(seen) < _SEARCHED_STATES:
        following: list[tuple[Matcher, list[int]]] = []
        for state, way in frontier:
            key = state.allowed().tobytes()
            if key in seen or len(way) > 4 * limit:
                continue
            seen.add(key)
            for move in _moves(state, alphabet):
                ahead = state.copy()
                ahead.consume(move)
                if ahead.accepting:
                    return [*way, *move]
                following.append((ahead, [*way, *move]))
        frontier = following
    return None


def _moves(state: Matcher, alphabet: Alphabet) -> list[list[int]]:
    """Ways to go on from a state: what is forced, else single bytes, the likeliest to lead out first."""
    forced = state.forced()
    if forced:
        return [forced]
    tokens = _by_byte(state, alphabet)
    ordered = sorted(tokens, key=lambda byte: (byte not in _PREFERRED, _PREFERRED.find(byte), byte))
    return [[tokens[byte]] for byte in ordered[:_BRANCHES]]
