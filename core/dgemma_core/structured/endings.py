"""A short way from a grammar's state to a complete text: the promise that an answer can still be finished in time.

The search runs byte by byte and walks greedily, closing what is open wherever that is allowed. A string that must not
end yet is filled with a text known to fit one of the schema's patterns. Where all that does not arrive, states are
searched breadth first, told apart by what they allow. The way found is a real one, so a budget that holds it can be
kept; now and then a shorter one exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dgemma_core.structured.matcher import Alphabet, Matcher

_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FREE_TEXT = 20  # so many letters allowed: inside of a string
_AFTER_A_STRING = frozenset(b",}]:")
_ENDS_OF_KEYS = frozenset(b":}")  # of bare ones
_QUOTE = ord('"')
# What closes or separates first, then the shortest values, then what opens something.
_PREFERRED = b'}],:0123456789"ntf-[{'
_SEARCHED_MOVES = 20_000


def short_ending(matcher: Matcher, alphabet: Alphabet, limit: int, hints: Sequence[str] = ()) -> list[int] | None:
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
    # The tokenizer's own spelling takes fewer tokens than single bytes.
    spelled = _spelled(way, alphabet)
    if len(spelled) < len(way) and matcher.accepts(spelled) == len(spelled):
        way = spelled
    return way if len(way) <= limit else None


def _spelled(way: Sequence[int], alphabet: Alphabet) -> list[int]:
    """The tokenizer's own spelling of what stands between control tokens."""
    spelled: list[int] = []
    for special, run in groupby(way, alphabet.is_special):
        tokens = list(run)
        spelled.extend(tokens if special else alphabet.spell(alphabet.bytes_of(tokens)))
    return spelled


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
        allowed = state.allowed()
        tokens = _by_byte(allowed, alphabet)
        special = _special(state, alphabet, _specials(allowed, alphabet), bool(tokens))
        if special is not None:
            state.consume([special])
            way.append(special)
            continue
        if not tokens:
            return None
        hinted = _hint(state, alphabet, tokens, hints)
        if hinted:
            state.consume(hinted)
            way.extend(hinted)
            continue
        byte = _choose(state, alphabet, tokens, before)
        state.consume([tokens[byte]])
        way.append(tokens[byte])
        before = frozenset(tokens)
    return None


def _by_byte(allowed: NDArray[np.bool_], alphabet: Alphabet) -> dict[int, int]:
    """Allowed single bytes and their tokens."""
    tokens = alphabet.byte_tokens[allowed[alphabet.byte_tokens]].tolist()
    return {alphabet.byte_of[token]: token for token in tokens}


def _special(state: Matcher, alphabet: Alphabet, specials: list[int], others: bool) -> int | None:
    """The control token to go on with: one that closes what is open, or where there are no others any."""
    closing = next((token for token in specials if _ends_text(state, alphabet, token)), None)
    if closing is not None or others or not specials:
        return closing
    # What opens free text (a thought) leads away.
    return min(specials, key=lambda token: (int(_after(state, [token]).allowed().sum()), token))


def _specials(allowed: NDArray[np.bool_], alphabet: Alphabet) -> list[int]:
    """Allowed control tokens that do not end an answer."""
    found: list[int] = alphabet.special_tokens[allowed[alphabet.special_tokens]].tolist()
    return found


def _after(state: Matcher, tokens: Sequence[int]) -> Matcher:
    ahead = state.copy()
    ahead.consume(tokens)
    return ahead


def _ends_text(state: Matcher, alphabet: Alphabet, token: int) -> bool:
    """Whether a control token ends a string or a text rather than begins one."""
    ahead = _after(state, [token])
    forced = ahead.forced()[:1]
    if ahead.accepting or (forced and alphabet.is_special(forced[0])):
        return True
    # Where more than one byte is forced, the mask has only their longest token.
    following = set(alphabet.bytes_of(forced)[:1]) if forced else _by_byte(ahead.allowed(), alphabet).keys()
    return bool(following) and following <= _AFTER_A_STRING


def _hint(state: Matcher, alphabet: Alphabet, tokens: dict[int, int], hints: Sequence[str]) -> list[int]:
    """The shortest hint that fits here and ends the string; nothing where the string may end anyway."""
    for hint in hints:
        for text in (hint, f"{hint}a"):
            if _QUOTE not in tokens:
                spelled = alphabet.spell(json.dumps(text, ensure_ascii=False)[1:].encode())
                if state.accepts(spelled) == len(spelled):
                    return spelled
            spelled = alphabet.spell(text.encode())
            if state.accepts(spelled) == len(spelled) and _closable(state, alphabet, spelled):
                return spelled
    return []


def _closable(state: Matcher, alphabet: Alphabet, text: Sequence[int]) -> bool:
    """Whether a control token could end the string after ``text``."""
    ahead = _after(state, text)
    return any(_ends_text(ahead, alphabet, token) for token in _specials(ahead.allowed(), alphabet))


def _choose(state: Matcher, alphabet: Alphabet, tokens: dict[int, int], before: frozenset[int]) -> int:
    if _QUOTE in tokens and _closes(state, tokens[_QUOTE]):
        return _QUOTE
    fresh = [byte for byte in tokens if byte not in before]
    if len(_LETTERS & tokens.keys()) >= _FREE_TEXT:
        for byte in _ENDS_OF_KEYS & tokens.keys() if _QUOTE not in tokens else ():
            if len(_LETTERS & _by_byte(_after(state, [tokens[byte]]).allowed(), alphabet).keys()) < _FREE_TEXT:
                return byte
        # Inside of a string that must go on: what has just become possible leads on, the rest may be a loop.
        options: Iterable[int] = fresh or tokens
        return min(options, key=lambda byte: (byte < 32, byte in _LETTERS, byte))
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
    moves = 0
    while frontier:
        following: list[tuple[Matcher, list[int]]] = []
        for state, way in frontier:
            key = state.allowed().tobytes()
            if key in seen or len(way) > 4 * limit:
                continue
            seen.add(key)
            for move in _moves(state, alphabet):
                moves += 1
                if moves > _SEARCHED_MOVES:
                    return None
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
    allowed = state.allowed()
    specials = [[token] for token in _specials(allowed, alphabet)]
    tokens = _by_byte(allowed, alphabet)
    ordered = sorted(tokens, key=lambda byte: (byte not in _PREFERRED, _PREFERRED.find(byte), byte))
    return specials + [[tokens[byte]] for byte in ordered]
