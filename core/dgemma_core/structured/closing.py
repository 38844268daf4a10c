"""The next tokens that lead to the end of a text soonest, judged by what the grammar allows after them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.matcher import Matcher

# Bytes that close or separate first, then those of the shortest values, then those that open something.
PREFERRED = b'}],:0123456789"ntf-[{'
_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FREE_TEXT = 20  # Where so many letters are allowed, the text is inside a string.
_AFTER_A_STRING = frozenset(b",}]:")
_ENDS_OF_BARE_KEYS = frozenset(b":}")
_QUOTE = ord('"')


def choose_control_token(state: Matcher, alphabet: Alphabet, specials: Sequence[int], others: bool) -> int | None:
    """The control token to continue with, if one should come next.

    Args:
        state: the grammar; it is not changed.
        alphabet: the tokenizer.
        specials: the allowed control tokens.
        others: whether ordinary bytes are allowed, too.

    Returns:
        A control token that closes something; without one and without other bytes, the one after which the fewest
        tokens are allowed; else None.
    """
    closing = next((token for token in specials if _ends_string(state, alphabet, token)), None)
    if closing is not None or others or not specials:
        return closing
    # A control token that opens free text (reasoning) allows nearly every token: it leads away from the end.
    return min(specials, key=lambda token: (int(_after(state, [token]).allowed().sum()), token))


def choose_hint(state: Matcher, alphabet: Alphabet, tokens: Mapping[int, int], hints: Sequence[str]) -> list[int]:
    """The tokens of the first hint that fits here and lets the string end; empty if there is none.

    Args:
        state: the grammar; it is not changed.
        alphabet: the tokenizer.
        tokens: the allowed single bytes and their tokens. If a quote is among them, a quoted string may end anyway.
        hints: texts, shortest first.
    """
    for hint in hints:
        for text in (hint, f"{hint}a"):
            if _QUOTE not in tokens:
                spelled = alphabet.spell(json.dumps(text, ensure_ascii=False)[1:].encode())
                if state.accepts(spelled) == len(spelled):
                    return spelled
            spelled = alphabet.spell(text.encode())
            if state.accepts(spelled) == len(spelled) and _may_end_after(state, alphabet, spelled):
                return spelled
    return []


def choose_byte(state: Matcher, alphabet: Alphabet, tokens: Mapping[int, int], before: frozenset[int]) -> int:
    """The byte to continue with.

    Args:
        state: the grammar; it is not changed.
        alphabet: the tokenizer.
        tokens: the allowed single bytes, at least one, and their tokens.
        before: the bytes that were allowed when a byte was chosen last.
    """
    if _QUOTE in tokens and _quote_closes(state, tokens[_QUOTE]):
        return _QUOTE
    fresh = [byte for byte in tokens if byte not in before]
    if len(_LETTERS & tokens.keys()) >= _FREE_TEXT:
        for byte in _ENDS_OF_BARE_KEYS & tokens.keys() if _QUOTE not in tokens else ():
            if len(_LETTERS & alphabet.bytes_in(_after(state, [tokens[byte]]).allowed()).keys()) < _FREE_TEXT:
                return byte
        # Inside a string that must continue: a newly allowed byte is progress, any other may be part of a loop.
        options: Iterable[int] = fresh or tokens
        return min(options, key=lambda byte: (byte < 32, byte in _LETTERS, byte))
    for byte in PREFERRED:
        if byte in tokens:
            return byte
    return min(fresh or tokens)


def _after(state: Matcher, tokens: Sequence[int]) -> Matcher:
    ahead = state.copy()
    ahead.consume(tokens)
    return ahead


def _ends_string(state: Matcher, alphabet: Alphabet, token: int) -> bool:
    """Whether a control token ends a string or a text, rather than begins one."""
    ahead = _after(state, [token])
    forced = ahead.forced()[:1]
    if ahead.accepting or (forced and alphabet.is_special(forced[0])):
        return True
    # Where several bytes are forced, the mask has only the longest token of them.
    following = set(alphabet.bytes_of(forced)[:1]) if forced else alphabet.bytes_in(ahead.allowed()).keys()
    return bool(following) and following <= _AFTER_A_STRING


def _may_end_after(state: Matcher, alphabet: Alphabet, text: Sequence[int]) -> bool:
    """Whether a control token could end the string after ``text``."""
    ahead = _after(state, text)
    return any(_ends_string(ahead, alphabet, token) for token in alphabet.specials_in(ahead.allowed()))


def _quote_closes(state: Matcher, quote: int) -> bool:
    """Whether a quote would end a string rather than begin one."""
    ahead = _after(state, [quote])
    if ahead.accepting or ahead.forced():
        return True
    mask = ahead.allowed()
    return not mask[quote] or bool(mask.sum() < _FREE_TEXT)
