"""A schema's own keywords, checked and written in one form; keywords with subschemas to merge are left out.

In this form ``type``, ``enum``, ``patterns`` and ``formats`` are lists, tuples are under ``prefixItems``, and bounds
are numbers. A schema of this form is called flat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dgemma_core.api.formats import FORMATS
from dgemma_core.api.patterns import whole_regex
from dgemma_core.structured.tool_schema.json_values import TYPES, is_number, same

Flat = dict[str, Any]

COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
# Keywords by the type of the values they restrict. Without "type", their presence says which types are meant.
SPEAKS_OF = {
    "string": ("minLength", "maxLength", "patterns", "formats"),
    "number": (*BOUNDS, "multipleOf"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "object": (
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
        "minProperties",
        "maxProperties",
    ),
}
_KEPT = frozenset(
    {"type", "enum", "const", "pattern", "format", "additionalItems", *(k for ks in SPEAKS_OF.values() for k in ks)}
)
# Keywords that restrict values and cannot be enforced, each with the values of it that restrict nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "not": (False,),
    "if": (True, False),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "contains": (),
    "unevaluatedItems": ({}, True),
    "$dynamicRef": (),
    "$recursiveRef": (),
}


class SchemaError(Exception):
    """Why a schema cannot be used, without its place; reported to users as a ``GrammarError``."""


def refuse(problem: str) -> None:
    """Raises a :class:`SchemaError`."""
    raise SchemaError(problem)


def own_keywords(schema: Mapping[str, Any], widen: Callable[[str], None] = refuse) -> Flat | None:
    """The flat schema of a schema's own keywords, or None if no value fits them.

    Args:
        schema: a JSON Schema.
        widen: gets the problem of each keyword that cannot be enforced, or has a value of the wrong type. If it
            returns, the keyword is left out.
    """
    _refuse_keywords(schema, widen)
    flat = {key: schema[key] for key in schema if key in _KEPT and not _without_effect(key, schema[key])}
    _check_types(flat, widen)
    if "type" in flat:
        types = [flat["type"]] if isinstance(flat["type"], str) else flat["type"]
        flat["type"] = [t for t in TYPES if t in types and not (t == "integer" and "number" in types)]
    _make_bounds_numbers(flat)
    if isinstance(flat.get("items"), list):  # tuples before draft 2020-12
        flat["prefixItems"], rest = flat.pop("items"), flat.pop("additionalItems", True)
        flat["items"] = rest
    flat.pop("additionalItems", None)
    if "pattern" in flat:
        flat["patterns"] = [flat.pop("pattern")]
    form = flat.pop("format", None)
    if form in FORMATS:
        flat["formats"] = [form]
    if "required" in flat:
        flat["required"] = sorted(set(flat["required"]))
    if "const" in flat:
        const = flat.pop("const")
        flat["enum"] = [v for v in flat.get("enum", [const]) if same(v, const)]
    return None if flat.get("enum") == [] else flat


def _refuse_keywords(schema: Mapping[str, Any], widen: Callable[[str], None]) -> None:
    for keyword, harmless in _REFUSED.items():
        if keyword not in schema or any(same(schema[keyword], value) for value in harmless):
            continue
        if keyword == "if" and not schema.keys() & {"then", "else"}:
            continue
        widen(f"{keyword!r} cannot be enforced")


def _without_effect(keyword: str, value: Any) -> bool:
    return (
        (keyword == "uniqueItems" and value is False)
        or (keyword == "propertyNames" and (value is True or value == {}))
        or (keyword == "patternProperties" and value == {})
    )


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(whole_regex(value))
    except ValueError:
        return False


def _check_types(flat: Flat, widen: Callable[[str], None]) -> None:
    """Check the types of the keywords' values, and make counts integers."""

    def need(key: str, fine: Callable[[Any], bool], what: str) -> None:
        if key in flat and not fine(flat[key]):
            widen(f"{key!r} must be {what}, not {flat[key]!r}")
            del flat[key]

    def known(value: Any) -> bool:
        types = value if isinstance(value, list) else [value]
        return bool(types) and all(t in TYPES for t in types)

    need("type", known, f"one or several of {', '.join(TYPES)}")
    for key in COUNTS:
        need(key, lambda v: is_number(v) and v >= 0 and int(v) == v, "a whole number")
        if key in flat:
            flat[key] = int(flat[key])
    for key in BOUNDS:
        need(key, lambda v: is_number(v) or isinstance(v, bool), "a number")
    need("multipleOf", lambda v: is_number(v) and v > 0, "a number above 0")
    need("enum", lambda v: isinstance(v, list) and bool(v), "a list of values")
    need("pattern", lambda v: isinstance(v, str), "a string")
    need("propertyNames", lambda v: isinstance(v, Mapping | bool), "a schema")
    need("properties", lambda v: isinstance(v, Mapping) and all(isinstance(k, str) for k in v), "an object")
    need("patternProperties", lambda v: isinstance(v, Mapping) and all(map(_is_pattern, v)), "an object of patterns")
    need("uniqueItems", lambda v: isinstance(v, bool), "a boolean")
    need("required", lambda v: isinstance(v, list) and all(isinstance(k, str) for k in v), "a list of names")
    need("prefixItems", lambda v: isinstance(v, list), "a list of schemas")
    need("unevaluatedProperties", lambda v: isinstance(v, bool), "a boolean here")


def _make_bounds_numbers(flat: Flat) -> None:
    """Rewrite draft 4, where ``exclusiveMinimum`` and ``exclusiveMaximum`` are booleans about the other bound."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(flat.get(exclusive), bool) and flat.pop(exclusive) and bound in flat:
            flat[exclusive] = flat.pop(bound)
