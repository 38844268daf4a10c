"""Shows the model the JSON schema that its answer will fit, in a short form.

A grammar alone makes an answer fit. Without the names, types and descriptions of the fields before its eyes, the model
would have to guess what belongs into them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dgemma_core.api.messages import Message

# As in the prompts that the embedded checkpoint was trained on. Without the second sentence it leaves out fields that
# are not required.
_SHOWN = "Answer with JSON that follows this schema:\n{schema}"
_FIELDS = "\n\nReturn JSON with the keys {names}."
_DEFINITIONS = ("$defs", "definitions")
# These say nothing about a value, or nothing that other keywords do not say.
_LEFT_OUT = frozenset({"$schema", "$id", "$comment", "examples", "default", "discriminator"})
_FIRST = {"type": 0, "description": 1}
_NAMED = frozenset({"properties", "patternProperties", *_DEFINITIONS})
_VALUES = frozenset({"enum", "const", "required"})


def shown(schema: Mapping[str, Any]) -> str:
    """The text that shows a schema to the model: its short form, and the names of its properties."""
    short = short_form(schema)
    text = _SHOWN.format(schema=json.dumps(short, ensure_ascii=False, default=str))
    root = with_root(short)
    names = root.get("properties")
    return text + _FIELDS.format(names=", ".join(names)) if isinstance(names, Mapping) and names else text


def with_schema(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """The conversation with the schema shown at the end of the user's last message.

    After an assistant's or a system message, and if there are no messages of a user, it is a user message of its own.
    """
    index = place_of_schema([message.role for message in messages])
    if index is None:
        return [*messages, Message("user", shown(schema))]
    asked = messages[index]
    gap = "\n\n" if asked.parts and isinstance(asked.parts[-1], str) and asked.parts[-1] else ""
    extended = replace(asked, content=[*asked.parts, f"{gap}{shown(schema)}"])
    return [*messages[:index], extended, *messages[index + 1 :]]


def place_of_schema(roles: Sequence[str]) -> int | None:
    """The index of the message that shows the schema, by the messages' roles; None for a message of its own."""
    users = [index for index, role in enumerate(roles) if role == "user"]
    return users[-1] if users and roles[-1] in ("user", "tool") else None


def with_root(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema with a ``$ref`` at its root replaced, because chat templates look for properties there."""
    path = str(schema.get("$ref", "")).split("/")
    if len(path) != 3 or not isinstance(said := schema.get(path[1], {}).get(path[2]), Mapping):
        return schema
    return {**{k: v for k, v in schema.items() if k != "$ref"}, **said}


def short_form(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without titles, defaults and other notes; a definition that is used once stands where it is used."""
    definitions = {f"#/{key}/{name}": value for key in _DEFINITIONS for name, value in schema.get(key, {}).items()}
    inside = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    uses = Counter(_references([inside, *definitions.values()]))
    for reference in list(uses):  # A reference to a part of a definition keeps it in its place.
        uses["/".join(reference.split("/")[:3])] += 2 * (reference.count("/") > 2)
    return _Shortening(schema, definitions, uses).short(schema)


class _Shortening:
    def __init__(self, root: Mapping[str, Any], definitions: Mapping[str, Any], uses: Counter[str]) -> None:
        self._root = root
        self._definitions = definitions
        self._uses = uses

    def short(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in schema.items():
            if key in _DEFINITIONS and schema is self._root:
                kept = {n: self._part(v) for n, v in value.items() if self._uses[f"#/{key}/{n}"] > 1}
                out |= {key: kept} if kept else {}
            elif key in _NAMED and isinstance(value, Mapping):
                out[key] = {name: self._part(inner) for name, inner in value.items()}
            elif key in _VALUES:
                out[key] = value
            elif key not in _LEFT_OUT and not _says_nothing(key, value):
                out[key] = self._part(value)
        reference = schema.get("$ref")
        if isinstance(reference, str) and self._uses[reference] == 1 and reference in self._definitions:
            target = self._part(self._definitions[reference])
            if isinstance(target, Mapping):
                del out["$ref"]
                out = {**target, **out}
        out = _with_nullable_type(out)
        return {key: out[key] for key in sorted(out, key=lambda key: _FIRST.get(key, len(_FIRST)))}

    def _part(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._part(item) for item in value]
        return self.short(value) if isinstance(value, Mapping) else value


def _says_nothing(keyword: str, value: Any) -> bool:
    return (keyword == "title" and isinstance(value, str)) or (keyword == "additionalProperties" and value is False)


def _with_nullable_type(schema: dict[str, Any]) -> dict[str, Any]:
    """``anyOf`` of a plain type and null as a list of types."""
    options = schema.get("anyOf")
    if not isinstance(options, list) or len(options) != 2 or {"type": "null"} not in options:
        return schema
    (other,) = [option for option in options if option != {"type": "null"}] or [{}]
    if not isinstance(other, Mapping) or not isinstance(other.get("type"), str) or other.keys() & {"enum", "const"}:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**other, "type": [other["type"], "null"], **rest}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _references(value)
