"""What schemas mean: which keys objects may hold, and which types keywords imply."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from pydantic import BaseModel, ConfigDict, Field

from dgemma_core import Grammar
from dgemma_core.api.json_schemas.implied_types import implied_types
from dgemma_core.errors import GrammarError

BYTES = LLTokenizer("byte")
INTEGER = {"type": "integer"}


def fits(schema: Any, value: Any) -> bool:
    matcher = LLMatcher(BYTES, Grammar.json_schema(schema).compiled(), log_level=0)
    tokens = BYTES.tokenize_str(json.dumps(value, separators=(",", ":")))
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


class Base(BaseModel):
    name: str = ""


class Derived(Base):
    year: int | None = None


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = ""


T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    items: list[T] = Field(max_length=2)
    counts: dict[str, int] = {}
    next: Page[T] | None = None


class Either(BaseModel):
    one: Base | Loose | str


@pytest.mark.parametrize(
    ("schema", "fine", "undeclared"),
    [
        (Base, {"name": "a"}, {"owner": "a"}),
        (Derived, {"name": "a", "year": 1}, {"name": "a", "year": 1, "owner": 2}),
        (Page[Base], {"items": [{"name": "a"}], "counts": {"x": 1}}, {"items": [{"owner": "a"}]}),
        (Page[Base], {"items": [], "next": {"items": []}}, {"items": [], "next": {"items": [], "owner": 1}}),
        (Either, {"one": {"name": "a"}}, {"one": {"name": "a"}, "owner": 1}),
        ({"properties": {"a": INTEGER}}, {"a": 1}, {"a": 1, "b": 1}),
        ({"type": ["object", "null"], "properties": {"a": INTEGER}}, None, {"b": 1}),
        ({"type": "object", "properties": {"a": INTEGER}, "required": ["b"]}, {"a": 1, "b": []}, {"b": 1, "c": 1}),
        ({"type": "object", "properties": {}}, {}, {"a": 1}),
        ({"type": "object", "required": ["a"]}, {"a": 1}, {"a": 1, "b": 1}),
        ({"items": {"properties": {"a": INTEGER}}}, [{"a": 1}], [{"b": 1}]),
    ],
)
def test_an_object_holds_declared_keys_only(schema: Any, fine: Any, undeclared: Any) -> None:
    assert fits(schema, fine)
    assert not fits(schema, undeclared)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Loose, {"name": "a", "owner": 1}),
        (Either, {"one": {"name": "a", "owner": 1}}),
        ({"type": "object", "properties": {"a": INTEGER}, "additionalProperties": INTEGER}, {"a": 1, "b": 2}),
        ({"type": "object", "properties": {"a": INTEGER}, "patternProperties": {"^x": INTEGER}}, {"a": 1, "x1": 2}),
        ({"type": "object"}, {"a": 1}),
        ({"type": "object", "additionalProperties": INTEGER}, {"a": 1}),
        ({"type": "object", "properties": {"a": INTEGER}, "required": ["a"], "minProperties": 2}, {"a": 1, "b": 2}),
        ({"properties": {"a": INTEGER}, "enum": [{"b": 1}]}, {"b": 1}),
    ],
)
def test_an_object_may_hold_other_keys_if_its_schema_says_so(schema: Any, value: Any) -> None:
    assert fits(schema, value)


DEFINED = {"$defs": {"base": {"type": "object", "properties": {"id": {"$ref": "#/$defs/id"}}}, "id": INTEGER}}


@pytest.mark.parametrize(
    "composed",
    [
        {"$ref": "#/$defs/base", "properties": {"year": INTEGER}},
        {"allOf": [{"$ref": "#/$defs/base"}, {"properties": {"year": INTEGER}}]},
        {"allOf": [{"$ref": "#/$defs/base"}], "properties": {"year": INTEGER}},
        {"properties": {"year": INTEGER}, "anyOf": [{"$ref": "#/$defs/base"}, {"type": "null"}]},
        {"properties": {"year": INTEGER}, "oneOf": [{"$ref": "#/$defs/base"}, {"type": "string"}]},
        {"required": ["id"], "anyOf": [{"properties": {"id": INTEGER, "year": INTEGER}}, {"type": "null"}]},
    ],
)
def test_inherited_keys_count_as_declared(composed: dict[str, Any]) -> None:
    nested = {"type": "object", "properties": {"it": composed}}
    ways: list[tuple[Any, Callable[[Any], Any]]] = [
        (composed, lambda value: value),
        (nested, lambda value: {"it": value}),
    ]
    for schema, whole in ways:
        schema = schema | DEFINED
        assert any(fits(schema, whole(v)) for v in ({"id": 1, "year": 2}, {"year": 2, "id": 1}))
        assert not fits(schema, whole({"id": 1, "owner": 2}))
        assert not fits(schema, whole({"id": "x"}))
    alone = {"type": "object", "properties": {"it": composed, "base": {"$ref": "#/$defs/base"}}} | DEFINED
    assert fits(alone, {"base": {"id": 1}})
    assert not fits(alone, {"base": {"id": 1, "year": 2}})


@pytest.mark.parametrize(
    ("schema", "fine", "other"),
    [
        ({"properties": {"a": INTEGER}}, {"a": 1}, [1]),
        ({"required": ["a"]}, {"a": 1}, "a"),
        ({"additionalProperties": INTEGER}, {"a": 1}, []),
        ({"patternProperties": {"^x": INTEGER}}, {"x": 1}, 1),
        ({"minProperties": 1}, {"a": 1}, None),
        ({"items": INTEGER}, [1], {"a": 1}),
        ({"prefixItems": [INTEGER]}, [1], "a"),
        ({"minItems": 1}, [1], {}),
        ({"minLength": 1}, "a", 1),
        ({"minimum": 1}, 2, "a"),
        ({"properties": {"a": {"properties": {"b": INTEGER}}}}, {"a": {"b": 1}}, {"a": [1]}),
        ({"items": {"required": ["a"]}}, [{"a": 1}], ["a"]),
        ({"properties": {"a": INTEGER}, "anyOf": [{"required": ["a"]}, {"required": ["a"]}]}, {"a": 1}, [1]),
        ({"allOf": [{"properties": {"a": INTEGER}}, {"required": ["a"]}]}, {"a": 1}, [1]),
    ],
)
def test_a_schema_without_type_means_the_type_of_its_keywords(schema: Any, fine: Any, other: Any) -> None:
    assert fits(schema, fine)
    assert not fits(schema, other)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"a": INTEGER}, "enum": [1, 2]}, 1),
        ({"properties": {"a": INTEGER}, "const": "x"}, "x"),
        ({"properties": {"a": INTEGER}, "anyOf": [INTEGER, {"type": "string"}]}, 1),
        ({"properties": {"a": INTEGER}, "anyOf": [{"type": "null"}, {"required": ["a"]}]}, None),
        ({"properties": {"a": INTEGER}, "anyOf": [{"type": "null"}, {"required": ["a"]}]}, {"a": 1}),
        ({"properties": {"a": INTEGER}, "allOf": [{"type": "array", "maxItems": 1}]}, [1]),
        ({"properties": {"a": INTEGER}, "$ref": "#/$defs/x", "$defs": {"x": {"type": "string"}}}, "a"),
        ({}, [1]),
        ({"description": "anything"}, 1),
    ],
)
def test_a_schema_that_says_its_type_otherwise_keeps_it(schema: Any, value: Any) -> None:
    assert fits(schema, value)


def test_an_ambiguous_schema_is_an_object_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    schema = {"type": "object", "properties": {"it": {"properties": {"b": INTEGER}, "items": INTEGER}}}
    with caplog.at_level(logging.WARNING):
        assert fits(schema, {"it": {"b": 1}})
        assert not fits(schema, {"it": [1]})
    assert "#/properties/it" in caplog.text
    assert "add 'type'" in caplog.text
    assert implied_types(["items", "properties"]) == ["object"]
    assert implied_types(["description"]) == []


def test_a_reference_that_cannot_be_looked_up_closes_nothing() -> None:
    inner = {"$id": "https://example.org/inner", "type": "object", "properties": {"a": INTEGER}}
    schema = {
        "type": "object",
        "properties": {"b": INTEGER},
        "$ref": "https://example.org/inner",
        "$defs": {"i": inner},
    }
    assert any(fits(schema, value) for value in ({"a": 1, "b": 1}, {"b": 1, "a": 1}))


NAMES = st.sampled_from("abc")
VALUES = st.recursive(
    st.sampled_from([None, 1, 2, "a", "bb"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=4,
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keywords = {
        "type": st.sampled_from(["object", "array", ["object", "null"]]),
        "properties": st.dictionaries(NAMES, inner, max_size=2),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "patternProperties": st.dictionaries(st.just("^b"), inner, max_size=1),
        "additionalProperties": inner | st.booleans(),
        "items": inner,
        "allOf": st.lists(inner, min_size=1, max_size=2),
        "anyOf": st.lists(inner, min_size=1, max_size=2),
        "$ref": st.sampled_from(["#/$defs/x", "#/$defs/y"]),
    }
    return st.fixed_dictionaries({}, optional=keywords)


SCHEMAS = st.recursive(
    st.sampled_from([{"type": "integer"}, {"type": "string"}, {}, {"enum": [1, "a"]}, {"minimum": 2}]),
    _objects,
    max_leaves=5,
)


@given(SCHEMAS, SCHEMAS, SCHEMAS, st.lists(VALUES, min_size=1, max_size=6))
def test_what_fits_the_meaning_fits_the_schema(whole: Any, x: Any, y: Any, values: list[Any]) -> None:
    schema = {**whole, "$defs": {"x": x, "y": y}}
    validator = jsonschema.Draft202012Validator(schema)
    try:
        accepted = [value for value in values if fits(schema, value)]
        assert all(map(validator.is_valid, accepted))
    except (GrammarError, RecursionError):
        return


def test_what_can_be_enforced_stays_beside_what_cannot(caplog: pytest.LogCaptureFixture) -> None:
    unique = {"type": "array", "uniqueItems": True}
    properties = {"free": {**unique, "items": {"type": "string"}}, "listed": {**unique, "items": {"enum": ["a", "b"]}}}
    grammar = Grammar.json_schema({"type": "object", "properties": properties}, strict=False)
    assert "#/properties/free: 'uniqueItems'" in caplog.text
    assert "#/properties/listed" not in caplog.text
    schema = json.loads(grammar.source)
    assert fits(schema, {"free": ["x", "x"], "listed": ["b", "a"]})
    assert not fits(schema, {"listed": ["a", "a"]})
