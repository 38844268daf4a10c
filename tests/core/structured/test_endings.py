"""Short endings: few tokens that complete a text from any state of a grammar."""

from __future__ import annotations

import pytest

from dgemma_core import Grammar
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.ending_search import search_states
from dgemma_core.structured.endings import short_ending
from tests.core.structured.grammars import letters, matcher_of

OBJECT = Grammar.json_schema(
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array"}}, "required": ["a"]}
)
PNG = Grammar.json_schema({"type": "string", "pattern": "\\.png$"})


def ending(alphabet: Alphabet, grammar: Grammar, begun: bytes, limit: int = 40, hints: tuple[str, ...] = ()) -> bytes:
    way = short_ending(matcher_of(alphabet, grammar, begun), alphabet, limit, hints)
    assert way is not None
    return alphabet.bytes_of(way)


@pytest.mark.parametrize(
    ("begun", "rest"),
    [
        (b"", b'{"a":""}'),
        (b"{", b'"a":""}'),
        (b'{"a":"x', b'"}'),
        (b'{"a":"x\\', b'""}'),
        (b'{"a":"","b":[[1', b"]]}"),
        (b'{"a":"","b":[tr', b"ue]}"),
        (b'{"a":""}', b""),
    ],
)
def test_what_is_open_is_closed(alphabet: Alphabet, begun: bytes, rest: bytes) -> None:
    assert ending(alphabet, OBJECT, begun) == rest


def test_a_hint_completes_a_string(alphabet: Alphabet) -> None:
    assert ending(alphabet, PNG, b'"a', hints=(".png",)) == b'.png"'


def test_a_loop_is_left_by_a_search(alphabet: Alphabet) -> None:
    grammar = Grammar.regex("(a|b)*(cd|e)")
    assert ending(alphabet, grammar, b"ab") == b"e"
    found = search_states(matcher_of(alphabet, grammar, b"a"), alphabet, 4)
    assert found == letters(alphabet, b"e")


def test_an_ending_takes_the_tokenizers_tokens(alphabet: Alphabet) -> None:
    digits = Grammar.regex("".join(f"({digit}|x)" for digit in range(10)))  # Every digit is a choice of its own.
    way = short_ending(matcher_of(alphabet, digits), alphabet, 40)
    assert way == alphabet.spell(b"0123456789")
    assert len(way) < 10


def test_a_limit_is_kept(alphabet: Alphabet) -> None:
    matcher = matcher_of(alphabet, Grammar.regex("z{9}"))
    way = short_ending(matcher, alphabet, 9)
    assert way is not None
    assert short_ending(matcher, alphabet, len(way) - 1) is None
    assert matcher.accepts(way) == len(way)  # The matcher is where it was.
