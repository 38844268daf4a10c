"""Bounds of numbers mean the same in answers and calls, also those that the compiler cannot write itself."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jsonschema
import pytest

from dgemma_core import Grammar
from dgemma_core.structured.matcher import Matcher
from dgemma_core.structured.tool_grammar import tool_grammar
from tests.core.structured.embedded_tokens import ALPHABET, COMPILER, TEMPLATE


def answers(schema: Any) -> Matcher:
    """A matcher before an answer."""
    return COMPILER.matcher(Grammar.json_schema(schema))


def calls(schema: Any) -> Matcher:
    """A matcher before an argument."""
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    matcher = COMPILER.matcher(tool_grammar([{"name": "f", "parameters": parameters}], "any"))
    matcher.consume([*TEMPLATE.markup("<|tool_call>"), *ALPHABET.spell(b"call:f{x:")])
    return matcher


def takes(matcher: Matcher, number: str) -> bool:
    """Whether the number may be written, and be the whole value."""
    spelled = ALPHABET.spell(number.encode())
    if matcher.accepts(spelled) < len(spelled):
        return False
    ahead = matcher.copy()
    ahead.consume(spelled)
    return ahead.accepting or ahead.accepts(ALPHABET.spell(b"}")) == 1


@pytest.mark.parametrize("written", [answers, calls])
@pytest.mark.parametrize(
    ("schema", "fitting", "other"),
    [
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, ["-9", str(2**63 - 1)], ["1.5"]),
        ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, ["0", "12345678901"], ["-1", str(2**64)]),
        ({"type": "integer", "exclusiveMinimum": -(10**30)}, ["-1", "0"], [str(-(10**30))]),
        ({"type": "number", "minimum": 0, "maximum": 1.7976931348623157e308}, ["0", "1.5", "1000000"], ["-1"]),
        ({"type": "number", "minimum": -1e308, "maximum": 1e308}, ["-2.5", "0", "7"], []),
        ({"type": "number", "exclusiveMinimum": 1e-300, "maximum": 1}, ["0.25", "1"], ["0", "0.0", "-1"]),
        ({"type": ["integer", "null"], "minimum": -(2**63)}, ["-5", "null"], ["1.5"]),
    ],
)
def test_bounds_of_other_languages(written: Any, schema: Any, fitting: list[str], other: list[str]) -> None:
    assert [number for number in fitting if not takes(written(schema), number)] == []
    assert [number for number in other if takes(written(schema), number)] == []


@pytest.mark.parametrize("written", [answers, calls])
@pytest.mark.parametrize("low", [-3, 0, 1, 100])
def test_no_number_on_an_exclusive_bound(written: Any, low: int) -> None:
    for width, lower, upper in itertools.product(
        (0.25, 0.5, 1, 1.5), ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
    ):
        schema = {"type": "number", lower: low, upper: low + width}
        matcher = written(schema)
        numbers = {f"{value}{end}" for value in (low, low + 1, low + width, low + width / 2) for end in ("", ".0", "0")}
        numbers = {number for number in numbers if number.count(".") < 2}
        taken = [number for number in numbers if takes(matcher, number)]
        assert taken
        for number in taken:
            jsonschema.validate(json.loads(number), schema)
