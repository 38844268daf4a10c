"""JSON Schemas of answers, rewritten so that llguidance enforces what validators and parsers check.

llguidance has formats and readings of patterns of its own. Here they become those of tool calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

# Imported here, because an import reads files, and the first grammar may be made on an event loop.
from llguidance import LLMatcher

from dgemma_core.api.formats import FORMATS
from dgemma_core.api.json_schemas.listed_values import ListedValues
from dgemma_core.api.json_schemas.places import ALL_NAMED, VALUES, rewritten
from dgemma_core.api.json_schemas.wide_bounds import within_reach
from dgemma_core.api.patterns import whole_regex

_OF_STRINGS = ("format", "pattern", "minLength", "maxLength")


def enforceable(schema: Any) -> Any:
    """The schema as llguidance must be given it.

    Formats of :data:`FORMATS` are written as patterns, other formats are left out, and patterns mean what Python and
    JavaScript agree on. Sets and keys that can be listed are listed. Bounds out of reach are narrowed.
    """
    listed = ListedValues(schema)
    return rewritten(schema, lambda part, _place: within_reach(_with_own_strings(listed.rewritten(part))))


def _with_own_strings(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key != "format" or not isinstance(value, str)}
    patterns = []
    if isinstance(schema.get("pattern"), str):
        patterns.append(_translated(schema["pattern"]))
    form = FORMATS.get(schema["format"]) if isinstance(schema.get("format"), str) else None
    if form is not None:
        patterns.append(f"^(?:{whole_regex(form.pattern, search=False)})$")
        if form.longest is not None:
            lengths = [form.longest, *(n for n in [kept.get("maxLength")] if isinstance(n, int | float))]
            kept["maxLength"] = min(lengths)
    if isinstance(kept.get("patternProperties"), Mapping):
        keys = kept["patternProperties"]
        kept["patternProperties"] = {_translated(pattern): part for pattern, part in keys.items()}
    if patterns:
        kept["pattern"], *more = patterns
        if more:
            kept["allOf"] = [*kept.get("allOf", []), *({"pattern": pattern} for pattern in more)]
    return kept


def _translated(pattern: str) -> str:
    try:
        return f"^(?:{whole_regex(pattern)})$"
    except ValueError:
        return pattern  # llguidance knows forms that Python does not; it refuses what it does not know.


def contradictions(schema: Any) -> Iterator[str]:
    """The places of a schema (``#/...``) whose formats, patterns and lengths no string fits, each with the keywords.

    Args:
        schema: as the user wrote it.
    """
    for path, part in _schemas_in(schema, "#"):
        said = {key: part[key] for key in _OF_STRINGS if key in part}
        if len(said) < 2:
            continue
        check = LLMatcher.grammar_from_json_schema(json.dumps({"type": "string", **_with_own_strings(said)}))
        failed, messages = LLMatcher.validate_grammar_with_warnings(check)
        if failed and any("nsatisfiable" in str(message) for message in messages):
            yield f"{path}: no string fits {', '.join(f'{key!r} {value!r}' for key, value in said.items())} at once"


def _schemas_in(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema in a schema, with its place."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _schemas_in(item, f"{path}/{index}")
    if not isinstance(node, Mapping):
        return
    yield path, node
    for key, value in node.items():
        if key in ALL_NAMED and isinstance(value, Mapping):
            for name, part in value.items():
                yield from _schemas_in(part, f"{path}/{key}/{name}")
        elif key not in VALUES:
            yield from _schemas_in(value, f"{path}/{key}")
