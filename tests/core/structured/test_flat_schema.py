"""JSON Schemas taken apart: one form of keywords, merging, and branches that exclude each other."""

from __future__ import annotations

from typing import Any

import pytest

from dgemma_core.errors import GrammarError
from dgemma_core.structured.tool_schema.flat_schema import SchemaFlattener
from dgemma_core.structured.tool_schema.json_values import may_fit, same, type_of
from dgemma_core.structured.tool_schema.keywords import SchemaError, own_keywords
from dgemma_core.structured.tool_schema.merging import merge
from dgemma_core.structured.tool_schema.problems import Problems


def expand(schema: Any, root: Any = None) -> list[dict[str, Any]]:
    return SchemaFlattener(Problems("f", strict=True), schema if root is None else root).expand(schema, "#")


def test_numbers_and_booleans_are_told_apart() -> None:
    assert same(1, 1.0)
    assert not same(1, True)
    assert same({"a": [1, None]}, {"a": [1.0, None]})
    assert not same([0], [False])
    assert [type_of(v) for v in (None, True, 1, "", [], {})] == [
        "null",
        "boolean",
        "number",
        "string",
        "array",
        "object",
    ]


@pytest.mark.parametrize(
    ("value", "schema", "fits"),
    [
        (2.0, {"type": ["integer"]}, True),
        (2.5, {"type": ["integer"]}, False),
        (True, {"type": ["number"]}, False),
        (float("nan"), {}, False),
        (3, {"exclusiveMinimum": 3}, False),
        (0.3, {"multipleOf": 0.1}, True),
        ("ab", {"patterns": ["b$", "^a"], "maxLength": 2}, True),
        ("ab", {"patterns": ["^b"]}, False),
        ("2023-02-29", {"formats": ["date"]}, False),
        ("2024-02-29", {"formats": ["date"]}, True),
        ("é1", {"patterns": ["^\\p{L}1$"]}, True),
    ],
)
def test_values_are_checked(value: Any, schema: dict[str, Any], fits: bool) -> None:
    assert may_fit(value, schema) is fits


@pytest.mark.parametrize(
    ("schema", "flat"),
    [
        ({"type": "string", "title": "T"}, {"type": ["string"]}),
        ({"type": ["number", "integer", "null"]}, {"type": ["null", "number"]}),
        ({"pattern": "a", "format": "date"}, {"patterns": ["a"], "formats": ["date"]}),
        ({"format": "shoe-size"}, {}),
        ({"const": 1, "enum": [1.0, 2]}, {"enum": [1.0]}),
        ({"const": 3, "enum": [1, 2]}, None),
        ({"minimum": 3, "exclusiveMinimum": True}, {"exclusiveMinimum": 3}),
        ({"minimum": 3, "exclusiveMinimum": False}, {"minimum": 3}),
        ({"items": [{}], "additionalItems": False}, {"prefixItems": [{}], "items": False}),
        ({"minItems": 2.0}, {"minItems": 2}),
        ({"not": False, "uniqueItems": False, "if": {}}, {}),
    ],
)
def test_keywords_have_one_form(schema: dict[str, Any], flat: dict[str, Any] | None) -> None:
    assert own_keywords(schema) == flat


@pytest.mark.parametrize("keyword", ["not", "dependentRequired", "if", "contains"])
def test_keywords_that_cannot_be_enforced_are_named(keyword: str) -> None:
    with pytest.raises(SchemaError, match=f"'{keyword}' cannot be enforced"):
        own_keywords({keyword: {"a": 1}, "then": {}})


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        ({"minimum": 1, "maxLength": 5}, {"minimum": 3, "maxLength": 4}, {"minimum": 3, "maxLength": 4}),
        ({"type": ["number", "null"]}, {"type": ["integer"]}, {"type": ["integer"]}),
        ({"type": ["string"]}, {"type": ["null"]}, None),
        ({"enum": [1, "a"]}, {"enum": ["a", True]}, {"enum": ["a"]}),
        ({"enum": [1]}, {"enum": [True]}, None),
        ({"multipleOf": 2}, {"multipleOf": 6}, {"multipleOf": 6}),
        ({"required": ["b"]}, {"required": ["a", "b"]}, {"required": ["a", "b"]}),
        ({"items": True}, {"items": {"type": "null"}}, {"items": {"type": "null"}}),
        (
            {"properties": {"a": {}}},
            {"additionalProperties": False},
            {"properties": {"a": False}, "additionalProperties": False},
        ),
    ],
)
def test_merging(a: dict[str, Any], b: dict[str, Any], both: dict[str, Any] | None) -> None:
    assert merge(a, b) == both
    assert merge(b, a) == both


def test_steps_without_a_common_multiple_are_refused() -> None:
    with pytest.raises(SchemaError, match="'multipleOf' of 2 and 3"):
        merge({"multipleOf": 2}, {"multipleOf": 3})


def test_alternatives_are_multiplied() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "null"}], "allOf": [{"maxLength": 3}, {"anyOf": [{}, False]}]}
    assert expand(schema) == [{"maxLength": 3, "type": ["string"]}, {"maxLength": 3, "type": ["null"]}]
    assert expand(True) == [{}]
    assert expand(False) == []


def test_a_reference_stays_unless_something_is_merged_with_it() -> None:
    root = {"$defs": {"s": {"type": "string"}, "a/b": {"$ref": "#/$defs/s"}}}
    assert expand({"$ref": "#/$defs/s"}, root) == [{"$ref": "#/$defs/s"}]
    assert expand({"$ref": "#/$defs/a~1b", "maxLength": 1}, root) == [{"maxLength": 1, "type": ["string"]}]


def tagged(value: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"tag": {"const": value}}, "required": ["tag"]}


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "string"}, {"type": "integer"}],
        [{"enum": ["a"]}, {"type": "string", "pattern": "^b"}],
        [tagged("a"), tagged("b")],
        [{"type": "object", "properties": {"a": {}}, "additionalProperties": False}, tagged("x")],
        [
            {"type": "object", "properties": {"x": tagged(1)}, "required": ["x"]},
            {"type": "object", "properties": {"x": tagged(2)}},
        ],
    ],
)
def test_one_of_branches_that_exclude_each_other(branches: list[Any]) -> None:
    with_one = expand({"oneOf": branches})
    assert with_one == expand({"anyOf": branches})


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"enum": ["a", "b"]}, {"type": "string", "pattern": "^b"}],
        [tagged("a"), {"type": "object", "properties": {"tag": {"type": "string"}}}],
        [tagged("a"), tagged("a") | {"title": "another"}],
    ],
)
def test_one_of_branches_that_may_overlap_are_refused(branches: list[Any]) -> None:
    with pytest.raises(GrammarError, match="tool 'f', #: 'oneOf' cannot be enforced"):
        expand({"oneOf": branches})


def test_a_reference_merged_into_itself_is_refused() -> None:
    with pytest.raises(GrammarError, match="leads back to itself"):
        expand({"$ref": "#", "maxLength": 2})
