"""Patterns and formats of JSON Schema as regular expressions for whole texts."""

from __future__ import annotations

import re

import pytest

from dgemma_core import Grammar
from dgemma_core.api.formats import FORMATS
from dgemma_core.api.patterns import whole_regex
from dgemma_core.structured.alphabet import Alphabet
from tests.core.structured.grammars import letters, matcher_of

TEXTS = ["", "a", "b", "ab", "ba", "aab", "abc", "xaby", "a1", "1a", "12", "a b", "A", "a.png", "a\nb", "b\n", "_"]
PATTERNS = ["a", "^a", "b$", "^ab$", "^a|b$", "(^a|x)b", "a.b", "[^a-z]", "^[a-c]{2,3}$", "\\d$", "^\\w+$", "(ab?)+c"]


def fits(alphabet: Alphabet, regex: str, text: str) -> bool:
    matcher = matcher_of(alphabet, Grammar.regex(regex))
    tokens = letters(alphabet, text.encode())
    if matcher.accepts(tokens) < len(tokens):
        return False
    matcher.consume(tokens)
    return matcher.accepting


@pytest.mark.parametrize("pattern", PATTERNS)
def test_whole_texts_fit_where_the_pattern_is_found(alphabet: Alphabet, pattern: str) -> None:
    whole = whole_regex(pattern)
    for text in TEXTS:
        # Python's "$" matches before a line feed at the end, too; JavaScript's does not, and both must find it.
        found = re.search(re.sub(r"\$", r"\\Z", pattern), text) is not None
        assert fits(alphabet, whole, text) == found, text


def test_sets_are_those_that_two_dialects_share(alphabet: Alphabet) -> None:
    assert fits(alphabet, whole_regex("^\\w\\d$"), "e1")
    assert not fits(alphabet, whole_regex("^\\w$"), "é")  # a word character for Python only
    assert not fits(alphabet, whole_regex("^\\d$"), "٣")


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("(", "cannot be parsed"),
        ("(?m)a", "flags"),
        ("(?m:a)", "flags"),
        ("(?=a)b", "assert"),
        ("(a)\\1", "groupref"),
        ("a\\bc", "middle"),
        ("a^b", "middle"),
        ("(^a)+", "anchor"),
        ("(^|a)" * 9, "too many"),
    ],
)
def test_what_cannot_be_written_is_named(pattern: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        whole_regex(pattern)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_has_a_sample_that_fits(alphabet: Alphabet, form: str) -> None:
    regex = whole_regex(FORMATS[form].pattern, search=False)
    assert fits(alphabet, regex, FORMATS[form].sample)
    assert not fits(alphabet, regex, f"{FORMATS[form].sample} ~")
