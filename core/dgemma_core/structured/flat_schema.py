"""JSON Schemas as alternatives of flat ones.

A schema is taken apart into alternatives without ``anyOf`` and the like. In a flat schema ``type``, ``enum``,
``patterns`` and ``formats`` are lists, tuples stand under ``prefixItems``, and every keyword is one that
:mod:`dgemma_core.structured.tool_grammar` can write down; what restricts values and cannot be enforced is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

from dgemma_core.errors import GrammarError
from dgemma_core.structured.patterns import FORMATS

_MOST_ALTERNATIVES = 256
_MOST_EXPANDED = 20_000
_DEEPEST_COMPARISON = 3
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LOWER = frozenset({"minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"})
# Keywords by the type they speak about; without "type", their presence tells what is meant.
SPEAKS_OF = {
    "string": ("minLength", "maxLength", "patterns", "formats"),
    "number": (*_BOUNDS, "multipleOf"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": (
        "properties",
        "required",
        "additionalProperties",
        "unevaluatedProperties",
        "minProperties",
        "maxProperties",
    ),
}
_KEPT = frozenset(
    {"type", "enum", "const", "pattern", "format", "additionalItems", *(k for ks in SPEAKS_OF.values() for k in ks)}
)
# What restricts values and is not enforced, with the values under which it does not.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "not": (False,),
    "if": (True, False),
    "patternProperties": ({},),
    "propertyNames": ({}, True),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "uniqueItems": (False,),
    "contains": (),
    "unevaluatedItems": ({}, True),
    "$dynamicRef": (),
    "$recursiveRef": (),
}


class SchemaParts:
    """Takes one tool's parameters apart.

    Args:
        tool: its name, for errors.
        root: the schema, to which references lead.
    """

    def __init__(self, tool: str, root: Any) -> None:
        self._tool = tool
        self._root = root
        self._inlining: list[str] = []
        self._expanded = 0  # Schemas taken apart.
        self._compared = 0  # How deep a comparison of branches has gone.

    def error(self, path: str, problem: str) -> GrammarError:
        """What to raise about a place of the schema."""
        return GrammarError(f"tool {self._tool!r}, {path}: {problem}", None)

    def expand(self, schema: Any, path: str) -> list[dict[str, Any]]:
        """The flat schemas of which a value fits one at least; ``path`` is where the schema stands.

        Raises:
            GrammarError: no schema, or a keyword that cannot be enforced.
        """
        self._expanded += 1
        if self._expanded > _MOST_EXPANDED:
            raise self.error(path, f"the schema is too large: more than {_MOST_EXPANDED} parts after merging")
        if isinstance(schema, bool):
            return [{}] if schema else []
        if not isinstance(schema, Mapping):
            raise self.error(path, f"a schema is an object or a boolean, not {schema!r}")
        self._check_keywords(schema, path)
        flat = self._normal(schema, path)
        if flat is None:
            return []
        flats = [flat]
        if "$ref" in schema:
            flats = self.combine(flats, [{"$ref": schema["$ref"]}], path)
        for keyword in ("allOf", "anyOf", "oneOf"):
            if keyword in schema:
                flats = self._combined_with(keyword, schema[keyword], flats, path)
        return flats

    def _check_keywords(self, schema: Mapping[str, Any], path: str) -> None:
        for keyword, harmless in _REFUSED.items():
            if keyword not in schema or any(_same(schema[keyword], value) for value in harmless):
                continue
            if keyword == "if" and not schema.keys() & {"then", "else"}:
                continue
            raise self.error(path, f"{keyword!r} cannot be enforced")

    def _combined_with(
        self, keyword: str, branches: Any, flats: list[dict[str, Any]], path: str
    ) -> list[dict[str, Any]]:
        if not isinstance(branches, list) or not branches:
            raise self.error(path, f"{keyword!r} needs a list of schemas")
        expanded = [self.expand(branch, f"{path}/{keyword}/{i}") for i, branch in enumerate(branches)]
        if keyword == "allOf":
            for options in expanded:
                flats = self.combine(flats, options, path)
            return flats
        combined = [self.combine(flats, options, path) for options in expanded]
        if keyword == "oneOf":
            for one, other in combinations(combined, 2):
                if not all(self._disjoint(a, b, path) for a in one for b in other):
                    raise self.error(path, "'oneOf' cannot be enforced: its branches may overlap; use 'anyOf'")
        return [flat for options in combined for flat in options]

    def combine(self, some: list[dict[str, Any]], others: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
        """What fits one of ``some`` and one of ``others``. References stay where nothing is to be merged."""
        found: list[dict[str, Any]] = []
        for one in some:
            for other in others:
                if not one or not other:
                    found.append(dict(one or other))
                    continue
                for a in self._inlined(one, path):
                    merged = (self._merged(a, b, path) for b in self._inlined(other, path))
                    found.extend(m for m in merged if m is not None)
                if len(found) > _MOST_ALTERNATIVES:
                    raise self.error(path, f"more than {_MOST_ALTERNATIVES} combinations of alternatives")
        return found

    def _inlined(self, flat: dict[str, Any], path: str) -> list[dict[str, Any]]:
        if "$ref" not in flat:
            return [flat]
        reference = flat["$ref"]
        if reference in self._inlining:
            raise self.error(path, f"'$ref' to {reference!r} stands next to other keywords and leads back to itself")
        self._inlining.append(reference)
        try:
            expanded = self.expand(self.target(reference, path), reference)
            return [inner for option in expanded for inner in self._inlined(option, path)]
        finally:
            self._inlining.pop()

    def target(self, reference: Any, path: str) -> Any:
        """The schema to which a reference leads."""
        if not isinstance(reference, str) or not re.fullmatch(r"#(/.*)?", reference, re.DOTALL):
            raise self.error(path, f"'$ref' to {reference!r}: only places of the same schema (#/...) can be used")
        found: Any = self._root
        for part in reference.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise self.error(path, f"'$ref' to {reference!r}: there is no such place")
        return found

    def _normal(self, schema: Mapping[str, Any], path: str) -> dict[str, Any] | None:
        """The keywords that hold for one value, in the form of a flat schema; None if nothing fits."""
        flat = {key: schema[key] for key in schema if key in _KEPT}
        self._check_shapes(flat, path)
        if "type" in flat:
            types = [flat["type"]] if isinstance(flat["type"], str) else flat["type"]
            flat["type"] = [t for t in TYPES if t in types and not (t == "integer" and "number" in types)]
        _whole_bounds(flat)
        if isinstance(flat.get("items"), list):  # Before 2020, tuples were written so.
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
            flat["enum"] = [v for v in flat.get("enum", [const]) if _same(v, const)]
        return None if flat.get("enum") == [] else flat

    def _check_shapes(self, flat: dict[str, Any], path: str) -> None:
        def need(key: str, fine: Callable[[Any], bool], what: str) -> None:
            if key in flat and not fine(flat[key]):
                raise self.error(path, f"{key!r} must be {what}, not {flat[key]!r}")

        def known(value: Any) -> bool:
            types = value if isinstance(value, list) else [value]
            return bool(types) and all(t in TYPES for t in types)

        need("type", known, f"one or several of {', '.join(TYPES)}")
        for key in _COUNTS:
            need(key, lambda v: _is_number(v) and v >= 0 and int(v) == v, "a whole number")
            if key in flat:
                flat[key] = int(flat[key])
        for key in _BOUNDS:
            need(key, lambda v: _is_number(v) or isinstance(v, bool), "a number")
        need("multipleOf", lambda v: _is_number(v) and v > 0, "a number above 0")
        need("enum", lambda v: isinstance(v, list) and bool(v), "a list of values")
        need("pattern", lambda v: isinstance(v, str), "a string")
        need("properties", lambda v: isinstance(v, Mapping) and all(isinstance(k, str) for k in v), "an object")
        need("required", lambda v: isinstance(v, list) and all(isinstance(k, str) for k in v), "a list of names")
        need("prefixItems", lambda v: isinstance(v, list), "a list of schemas")
        need("unevaluatedProperties", lambda v: isinstance(v, bool), "a boolean here")

    # Merging.

    def _merged(self, a: dict[str, Any], b: dict[str, Any], path: str) -> dict[str, Any] | None:
        """What fits both, or None if nothing does."""
        out = {**a, **b}
        for key in a.keys() & b.keys():
            if key in _COUNTS or key in _BOUNDS:
                out[key] = max(a[key], b[key]) if key in _LOWER else min(a[key], b[key])
        if "type" in a and "type" in b:
            out["type"] = _common_types(a["type"], b["type"])
        if "enum" in a and "enum" in b:
            out["enum"] = [value for value in a["enum"] if any(_same(value, other) for other in b["enum"])]
        if out.get("type") == [] or out.get("enum") == []:
            return None
        if "multipleOf" in a and "multipleOf" in b:
            out["multipleOf"] = self._common_multiple(a["multipleOf"], b["multipleOf"], path)
        for key in ("patterns", "formats", "required"):
            if key in a and key in b:
                out[key] = sorted({*a[key], *b[key]})
        if "unevaluatedProperties" in a and "unevaluatedProperties" in b:
            out["unevaluatedProperties"] = a["unevaluatedProperties"] and b["unevaluatedProperties"]
        _merge_objects(a, b, out)
        _merge_arrays(a, b, out)
        return out

    def _common_multiple(self, a: Any, b: Any, path: str) -> Any:
        low, high = sorted((a, b))
        if (Fraction(str(high)) / Fraction(str(low))).denominator != 1:
            raise self.error(path, f"'multipleOf' of {a} and {b} at once cannot be enforced")
        return high

    def _disjoint(self, a: dict[str, Any], b: dict[str, Any], path: str) -> bool:
        """Whether it is clear that no value fits both."""
        if "$ref" in a or "$ref" in b:
            pairs = [(x, y) for x in self._inlined(a, path) for y in self._inlined(b, path)]
            return all(self._disjoint(x, y, path) for x, y in pairs)
        if "type" in a and "type" in b and not _common_types(a["type"], b["type"]):
            return True
        for one, other in ((a, b), (b, a)):
            if "enum" in one:
                return not any(may_fit(value, one) and may_fit(value, other) for value in one["enum"])
        if a.get("type") != ["object"] or b.get("type") != ["object"]:
            return False
        return _closed_against(a, b) or _closed_against(b, a) or self._told_apart(a, b, path)

    def _told_apart(self, a: dict[str, Any], b: dict[str, Any], path: str) -> bool:
        """Whether a required property has values in one schema that it cannot have in the other."""
        ours, theirs = a.get("properties", {}), b.get("properties", {})
        if self._compared >= _DEEPEST_COMPARISON:
            return False
        self._compared += 1
        try:
            return self._any_apart(a, b, ours, theirs, path)
        finally:
            self._compared -= 1

    def _any_apart(
        self, a: dict[str, Any], b: dict[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str
    ) -> bool:
        for name in sorted({*a.get("required", []), *b.get("required", [])} & ours.keys() & theirs.keys()):
            if ours[name] is theirs[name]:
                continue
            where = f"{path}/properties/{name}"
            pairs = ((x, y) for x in self.expand(ours[name], where) for y in self.expand(theirs[name], where))
            if all(self._disjoint(x, y, where) for x, y in pairs):
                return True
        return False


# Values.


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf") and value == value
    )


def type_of(value: Any) -> str:
    """The JSON type of a value; whole numbers are numbers, too."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _same(a: Any, b: Any) -> bool:
    """Equality as JSON Schema has it: 1 and 1.0 are one number, true is none."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def may_fit(value: Any, flat: dict[str, Any]) -> bool:
    """Whether a value fits, as far as scalars are concerned; arrays and objects are looked at by type only."""
    kind = type_of(value)
    if kind == "number" and not _is_number(value):
        return False
    types = flat.get("type", TYPES)
    if kind not in types and not (kind == "number" and "integer" in types and value == int(value)):
        return False
    if "enum" in flat and not any(_same(value, other) for other in flat["enum"]):
        return False
    if kind == "string":
        fits = flat.get("minLength", 0) <= len(value) <= flat.get("maxLength", len(value))
        return fits and all(re.search(pattern, value) for pattern in flat.get("patterns", []))
    if kind == "number":
        step = Fraction(str(flat.get("multipleOf", 0)))
        return (
            flat.get("minimum", value) <= value <= flat.get("maximum", value)
            and not value <= flat.get("exclusiveMinimum", value - 1)
            and not value >= flat.get("exclusiveMaximum", value + 1)
            and (step == 0 or Fraction(str(value)) % step == 0)
        )
    return True


# Flat schemas.


def _whole_bounds(flat: dict[str, Any]) -> None:
    """Draft 4 has booleans that make the other bound exclusive."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(flat.get(exclusive), bool) and flat.pop(exclusive) and bound in flat:
            flat[exclusive] = flat.pop(bound)


def _common_types(a: Sequence[str], b: Sequence[str]) -> list[str]:
    def covered(kind: str, types: Sequence[str]) -> bool:
        return kind in types or (kind == "integer" and "number" in types)

    return [kind for kind in TYPES if covered(kind, a) and covered(kind, b) and (kind in a or kind in b)]


def _both(a: Any, b: Any) -> Any:
    if a is True or b is True:
        return b if a is True else a
    return False if a is False or b is False else {"allOf": [a, b]}


def _merge_objects(a: dict[str, Any], b: dict[str, Any], out: dict[str, Any]) -> None:
    if "additionalProperties" in a and "additionalProperties" in b:
        out["additionalProperties"] = _both(a["additionalProperties"], b["additionalProperties"])
    if "properties" in a or "properties" in b:
        ours, theirs = a.get("properties", {}), b.get("properties", {})
        out["properties"] = {
            name: _both(
                ours.get(name, a.get("additionalProperties", True)),
                theirs.get(name, b.get("additionalProperties", True)),
            )
            for name in dict.fromkeys((*ours, *theirs))
        }


def _merge_arrays(a: dict[str, Any], b: dict[str, Any], out: dict[str, Any]) -> None:
    if "items" in a and "items" in b:
        out["items"] = _both(a["items"], b["items"])
    ours, theirs = a.get("prefixItems", []), b.get("prefixItems", [])
    if ours or theirs:
        length = max(len(ours), len(theirs))
        padded = [
            [*heads, *[flat.get("items", True)] * (length - len(heads))] for heads, flat in ((ours, a), (theirs, b))
        ]
        out["prefixItems"] = [_both(x, y) for x, y in zip(*padded, strict=True)]


def _closed_against(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether ``b`` requires a property that ``a`` forbids."""
    closed = a.get("additionalProperties", True) is False
    return closed and any(name not in a.get("properties", {}) for name in b.get("required", []))
