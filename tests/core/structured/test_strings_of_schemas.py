"""Formats, patterns and lengths of strings mean the same in answers and calls, and parsers take what is written."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, TypeAdapter

from dgemma_core import Grammar
from dgemma_core.api.formats import FORMATS
from dgemma_core.errors import GrammarError
from dgemma_core.structured.matcher import Matcher
from dgemma_core.structured.tool_grammar import tool_grammar
from tests.core.structured.embedded_tokens import ALPHABET, COMPILER, TEMPLATE

PARSERS = {
    "date": datetime.date,
    "date-time": datetime.datetime,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "uri": AnyUrl,
    "uuid": uuid.UUID,
}
IMPOSSIBLE = [
    ("date", "2023-02-29", "2024-02-29"),
    ("date", "1900-02-29", "2000-02-29"),
    ("date", "0000-05-05", "0001-05-05"),
    ("date", "2023-04-31", "2023-04-30"),
    ("date", "2023-13-01", "2023-12-01"),
    ("time", "10:00:60Z", "10:00:59Z"),
    ("time", "10:00:00+24:00", "10:00:00+23:59"),
    ("date-time", "2023-02-29T10:00:00Z", "2024-02-29T10:00:00.5-01:30"),
    ("date-time", "2023-02-28T24:00:00Z", "2023-02-28T23:00:00Z"),
    ("duration", "P99999999999Y", "P1Y2M3DT4H5M6S"),
    ("duration", "P1DT", "P1D"),
    ("email", "a..b@c.de", "a.b+c@d-e.fr"),
    ("email", "a@b", "a@b.co"),
    ("hostname", "-a.b", "a-b.c"),
    ("ipv4", "1.2.3.256", "1.2.3.255"),
    ("ipv4", "01.2.3.4", "1.2.3.4"),
    ("ipv6", "1::2::3", "1::2:3"),
    ("uri", "http://", "http://a.b/c?d=%20#e"),
    ("uri", "http://a:99999", "http://a:8080"),
    ("uri", "https:a b", "urn:isbn:123"),
    ("uuid", "0000", "00000000-0000-0000-0000-00000000000F"),
    ("uuid4", "00000000-0000-1000-8000-000000000000", "00000000-0000-4000-8000-000000000000"),
]


def answers(schema: Any, text: str) -> bool:
    """Whether an answer may be this string."""
    return _takes(
        COMPILER.matcher(Grammar.json_schema(schema)), ALPHABET.spell(json.dumps(text, ensure_ascii=False).encode())
    )


def calls(schema: Any, text: str) -> bool:
    """Whether an argument may be this string."""
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    grammar = tool_grammar([{"name": "f", "parameters": parameters}], "any")
    opening, closing, quote = TEMPLATE.markup('<|tool_call><tool_call|><|"|>')
    spell = ALPHABET.spell
    turn = [opening, *spell(b"call:f{x:"), quote, *spell(text.encode()), quote, *spell(b"}"), closing]
    return _takes(COMPILER.matcher(grammar), turn)


def _takes(matcher: Matcher, tokens: list[int]) -> bool:
    if matcher.accepts(tokens) < len(tokens):
        return False
    matcher.consume(tokens)
    return matcher.accepting


@pytest.mark.parametrize("taken", [answers, calls])
@pytest.mark.parametrize(("form", "impossible", "possible"), IMPOSSIBLE)
def test_impossible_values_of_a_format_cannot_be_written(taken: Any, form: str, impossible: str, possible: str) -> None:
    schema = {"type": "string", "format": form}
    assert taken(schema, possible)
    assert not taken(schema, impossible)


@pytest.mark.parametrize("form", sorted(PARSERS))
def test_parsers_take_what_fits_a_format(form: str) -> None:
    parse = TypeAdapter(PARSERS[form]).validate_json

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.from_regex(FORMATS[form].pattern, fullmatch=True))
    def check(text: str) -> None:
        parse(json.dumps(text))

    check()


@pytest.mark.parametrize("taken", [answers, calls])
def test_a_format_holds_together_with_a_pattern_a_length_or_values(taken: Any) -> None:
    for more in ({"pattern": "^2024"}, {"maxLength": 5}, {"enum": ["2024-02-29", "2024-02-30", "x"]}):
        schema = {"type": "string", "format": "date", **more}
        if "maxLength" in more:
            with pytest.raises(GrammarError, match="no string fits"):
                taken(schema, "2024-")
            continue
        assert taken(schema, "2024-02-29")
        assert not taken(schema, "2024-02-30")
        assert not taken(schema, "2023-02-28") if "pattern" in more else not taken(schema, "x")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "format": "date", "pattern": "^2023-02-29$"},
        {"type": "string", "format": "ipv4", "minLength": 16},
        {"type": "string", "pattern": "^ab$", "maxLength": 1},
        {"type": "string", "minLength": 3, "maxLength": 2},
    ],
)
def test_a_contradiction_is_refused_with_its_place(schema: Any) -> None:
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    with pytest.raises(GrammarError, match="#/properties/x: no string fits"):
        Grammar.json_schema(parameters)
    with pytest.raises(GrammarError, match="tool 'f', #/properties/x: no string fits"):
        tool_grammar([{"name": "f", "parameters": parameters}], "any")


CLASSES = [r"^\W$", r"^\w$", r"^\D$", r"^\d$", r"^\S$", r"^\s$", r"^[^\w]$", r"^[^\W]$", r"^[^\s\d]$", "^.$", "^[^a]$"]
CHARACTERS = ["a", "Z", "5", "_", "é", "٣", "²", "-", " ", "\t", "\n", "\xa0", "\x1c", "\x85", "\u2028", "\ufeff", "中"]


@pytest.mark.parametrize("taken", [answers, calls])
@pytest.mark.parametrize("pattern", CLASSES)
def test_python_finds_the_pattern_in_what_is_written(taken: Any, pattern: str) -> None:
    fitting = [text for text in CHARACTERS if taken({"type": "string", "pattern": pattern}, text)]
    assert fitting
    assert all(re.search(pattern, text) for text in fitting)


@pytest.mark.parametrize("pattern", CLASSES)
def test_python_matches_what_a_regex_grammar_allows(pattern: str) -> None:
    pattern = pattern.strip("^$")
    matcher = COMPILER.matcher(Grammar.regex(pattern))
    fitting = [text for text in CHARACTERS if _takes(matcher.copy(), ALPHABET.spell(text.encode()))]
    assert fitting
    assert all(re.fullmatch(pattern, text) for text in fitting)


@pytest.mark.parametrize("taken", [answers, calls])
@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("(?i)^ab$", "aB", "ac"),
        ("(?i)^[a-c]é$", "BÉ", "dé"),
        ("(?i)^[^a-c]$", "d", "B"),
        ("^(?i:a)b$", "Ab", "aB"),
        ("(?s)^a.b$", "a\nb", "ab"),
        (r"^\p{L}+$", "éa", "1"),
        (r"^[\p{Lu}\d]$", "É", "é"),
        (r"^\P{L}$", "1", "é"),
        ("^(?<year>[0-9]{4})$", "2024", "24"),
        (r"^\u{e9}$", "é", "e"),
    ],
)
def test_forms_of_patterns_that_both_know(taken: Any, pattern: str, fitting: str, other: str) -> None:
    assert taken({"type": "string", "pattern": pattern}, fitting)
    assert not taken({"type": "string", "pattern": pattern}, other)
