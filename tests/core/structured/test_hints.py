"""Hints: short texts that fit a grammar's strings."""

from __future__ import annotations

import re

import pytest

from dgemma_core import Grammar
from dgemma_core.structured.hints import HINTS_LINE, sample, string_hints


def test_a_schemas_patterns_and_formats_give_hints() -> None:
    numbers = {"type": "array", "items": {"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "null"}]}}
    properties = {"a": {"type": "string", "pattern": "\\.png$"}, "b": numbers}
    assert string_hints(Grammar.json_schema({"type": "object", "properties": properties}).source) == (".png", "0.0.0.0")
    assert string_hints('{"pattern": "(", "format": "shoe-size"}') == ()


def test_a_lark_grammar_lists_its_hints() -> None:
    assert string_hints(f'{HINTS_LINE}["bbb", "a", "cc", ""]\nstart: "x"') == ("a", "cc", "bbb")


@pytest.mark.parametrize("source", ["[a-z]+", 'start: "x"', '["yes", "no"]', "[]"])
def test_other_sources_have_none(source: str) -> None:
    assert string_hints(source) == ()


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^abc$", "abc"),
        ("a{3}b*", "aaa"),
        ("long|x", "x"),
        ("(?:ab)+c", "abc"),
        ("[^a-z]", "0"),
        ("\\d\\s\\w", "0 a"),
        (".", "a"),
    ],
)
def test_a_sample_is_short(pattern: str, text: str) -> None:
    assert sample(pattern) == text
    assert re.search(pattern, text)


@pytest.mark.parametrize("pattern", ["(", "(?<=a)b", "(a)\\1", "a\\bb"])
def test_patterns_without_a_sample(pattern: str) -> None:
    assert sample(pattern) is None
