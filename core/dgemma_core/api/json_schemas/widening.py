"""JSON Schemas of answers without the keywords that cannot be enforced."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dgemma_core.api.json_schemas.listed_values import ListedValues
from dgemma_core.api.json_schemas.places import rewritten
from dgemma_core.api.patterns import whole_regex

# Other keywords are never left out: an answer without them would say little about what was asked.
_DROPPED = frozenset(
    "not if then else dependencies dependentRequired dependentSchemas uniqueItems propertyNames contains minContains "
    "maxContains unevaluatedItems unevaluatedProperties $dynamicRef $recursiveRef".split()
)


def widened(schema: Mapping[str, Any], problem_of: Callable[[Any], str]) -> tuple[Any, list[str]]:
    """The schema with less and less of what a compiler cannot enforce, until it takes it.

    Args:
        schema: a JSON Schema.
        problem_of: why the compiler refuses a schema; empty if it takes it.

    Returns:
        The schema, and the places that were widened, each with its keyword.
    """
    notes: list[str] = []
    for _ in range(4):  # Each round finds what the one before hid.
        problem = problem_of(schema)
        if not problem:
            break
        changed, found = _changed(schema, _change_for(problem, ListedValues(schema)))
        if not found:
            break
        schema, notes = changed, [*notes, *found]
    return schema, notes


Change = Callable[[dict[str, Any]], tuple[dict[str, Any], list[str]]]
"""A schema, whose parts are changed already, to a wider one and the keywords that are no longer enforced."""


def _change_for(problem: str, listed: ListedValues) -> Change:
    unknown = set(re.findall(r'"([^"]+)"', problem)) & _DROPPED if "nimplemented" in problem else set()
    if unknown:

        def without_unknown(schema: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
            dropped = unknown & schema.keys() & listed.rewritten(schema).keys()  # Others can be listed.
            kept = {key: value for key, value in schema.items() if key not in dropped}
            return kept, [key for key in schema if key in dropped]

        return without_unknown
    if "oneOf" in problem:
        return _any_of
    if "min/maxProperties" in problem:
        return _uncounted
    return _without_hard_patterns


def _any_of(schema: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    if "oneOf" not in schema:
        return schema, []
    kept = {key: value for key, value in schema.items() if key != "oneOf"}
    if "anyOf" in kept:
        kept["allOf"] = [*kept.get("allOf", []), {"anyOf": schema["oneOf"]}]
        return kept, ["oneOf"]
    return {**kept, "anyOf": schema["oneOf"]}, ["oneOf"]


def _uncounted(schema: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    counts = {"minProperties", "maxProperties"} & schema.keys()
    return {key: value for key, value in schema.items() if key not in counts}, sorted(counts)


def _without_hard_patterns(schema: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(schema.get("pattern"), str):
        return schema, []
    try:
        whole_regex(schema["pattern"])
    except ValueError:
        return {key: value for key, value in schema.items() if key != "pattern"}, ["pattern"]
    return schema, []


def _changed(schema: Mapping[str, Any], change: Change) -> tuple[Any, list[str]]:
    """The schema with all its parts changed, and the places with the keywords that are no longer enforced."""
    found: list[str] = []

    def noted(part: dict[str, Any], place: str) -> dict[str, Any]:
        made, keywords = change(part)
        found.extend(f"{place}: {keyword!r} cannot be enforced" for keyword in keywords)
        return made

    # Inside a negation, wider would be narrower.
    return rewritten(schema, noted, _DROPPED), found
