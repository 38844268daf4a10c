"""The short form of a schema, which the model sees."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from dgemma_core.api.messages import Message
from dgemma_integrations.shared.shown_schema import short_form, shown, with_schema


class Part(BaseModel):
    title: str = Field(description="What it is called.")
    default: Literal["a", "b"] | None = None
    parts: list[Part] = []


class Machine(BaseModel):
    """A machine."""

    part: Part
    other: Part | None = None


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "short"),
    [
        ({"title": "T", "properties": {"title": TEXT}}, {"properties": {"title": TEXT}}),
        ({"properties": {}, "additionalProperties": False, "type": "object"}, {"type": "object", "properties": {}}),
        ({"type": "object", "additionalProperties": TEXT}, {"type": "object", "additionalProperties": TEXT}),
        ({"anyOf": [TEXT, {"type": "null"}], "default": None}, {"type": ["string", "null"]}),
        ({"anyOf": [{"enum": ["a"]}, {"type": "null"}]}, {"anyOf": [{"enum": ["a"]}, {"type": "null"}]}),
        ({"$ref": "#/$defs/x", "$defs": {"x": TEXT, "unused": TEXT}}, TEXT),
        (
            {"items": {"$ref": "#/$defs/x/items"}, "$defs": {"x": {"items": TEXT}}},
            {"items": {"$ref": "#/$defs/x/items"}, "$defs": {"x": {"items": TEXT}}},
        ),
        ({"const": {"title": "kept"}}, {"const": {"title": "kept"}}),
    ],
)  # fmt: skip
def test_the_short_form(schema: dict[str, Any], short: dict[str, Any]) -> None:
    assert short_form(schema) == short


def test_a_class_that_contains_itself_has_a_short_form() -> None:
    short = short_form(Machine.model_json_schema())
    assert short["$defs"]["Part"]["properties"]["title"] == {**TEXT, "description": "What it is called."}
    assert shown(Part.model_json_schema()).endswith("Return JSON with the keys title, default, parts.")
    assert "keys" not in shown({"type": "array", "items": TEXT})


def test_the_schema_stands_after_what_the_user_said() -> None:
    system, user, tool = Message("system", "s"), Message("user", "u"), Message("tool", "t", name="f")
    assert with_schema([system, user], TEXT) == [system, Message("user", f"u\n\n{shown(TEXT)}")]
    assert with_schema([user, tool], TEXT) == [Message("user", f"u\n\n{shown(TEXT)}"), tool]
    assert with_schema([system], TEXT) == [system, Message("user", shown(TEXT))]
    assert with_schema([Message("user", "")], TEXT) == [Message("user", shown(TEXT))]
