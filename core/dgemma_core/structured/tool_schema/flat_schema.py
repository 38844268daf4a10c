"""JSON Schemas as alternatives of flat ones, without ``allOf``, ``anyOf``, ``oneOf`` and, where possible, ``$ref``.

Nearly every keyword of a flat schema can be written as a grammar. A keyword that restricts values and cannot be
enforced is refused or left out, see :class:`Problems`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from dgemma_core.structured.tool_schema.disjoint import BranchComparison
from dgemma_core.structured.tool_schema.keywords import Flat, SchemaError, own_keywords
from dgemma_core.structured.tool_schema.merging import merge
from dgemma_core.structured.tool_schema.problems import Problems
from dgemma_core.structured.tool_schema.references import References

_OVERLAP = "cannot be enforced: its branches may overlap; use 'anyOf', or branches told apart by a 'const'"
_MOST_ALTERNATIVES = 256
_MOST_EXPANDED = 20_000


class SchemaFlattener:
    """Turns the schemas of one tool's parameters into flat ones.

    Args:
        problems: of the tool.
        root: the whole schema, in which references are looked up.

    Attributes:
        root: the schema, to be written instead of the given one.
    """

    def __init__(self, problems: Problems, root: Any) -> None:
        self._problems = problems
        self._inlining: list[str] = []  # references that are being replaced by their schemas
        self._expanded = 0  # schemas so far
        self._references = References(root)
        self.root = self._references.root
        self._branches = BranchComparison(self.expand, self._inlined)

    def expand(self, schema: Any, path: str) -> list[Flat]:
        """The flat schemas of a schema; a value fits the schema if it fits at least one of them.

        Args:
            schema: a JSON Schema.
            path: its place, for errors.

        Raises:
            GrammarError: not a schema, or a keyword that cannot be enforced.
        """
        self._expanded += 1
        if self._expanded > _MOST_EXPANDED:
            self._problems.widen("#", f"the schema is too large: more than {_MOST_EXPANDED} parts after merging")
            return [{}]
        if isinstance(schema, bool):
            return [{}] if schema else []
        if not isinstance(schema, Mapping):
            self._problems.widen(path, f"a schema is an object or a boolean, not {schema!r}")
            return [{}]
        flat = own_keywords(schema, lambda problem: self._problems.widen(path, problem))
        if flat is None:
            return []
        flats = [flat]
        if "$ref" in schema:
            flats = self.combine(flats, [{"$ref": schema["$ref"]}], path)
        for keyword in ("allOf", "anyOf", "oneOf"):
            if keyword in schema:
                flats = self._combined_with(keyword, schema[keyword], flats, path)
        if isinstance(schema.get("if"), bool):
            branch = "then" if schema["if"] else "else"
            flats = self.combine(flats, self.expand(schema.get(branch, True), f"{path}/{branch}"), path)
        return [_closed(flat) for flat in flats]

    def combine(self, some: list[Flat], others: list[Flat], path: str) -> list[Flat]:
        """Flat schemas for the values that fit one of ``some`` and one of ``others``.

        A ``$ref`` stays where it is merged with nothing.

        Raises:
            GrammarError: too many combinations, or two keywords that cannot be merged.
        """
        found: list[Flat] = []
        for one in some:
            for other in others:
                if not one or not other:
                    found.append(dict(one or other))
                    continue
                for a in self._inlined(one, path):
                    merged = (self._merged(a, b, path) for b in self._inlined(other, path))
                    found.extend(m for m in merged if m is not None)
                if len(found) > _MOST_ALTERNATIVES:
                    self._problems.widen(path, f"more than {_MOST_ALTERNATIVES} combinations of alternatives")
                    return some
        return found

    def target(self, reference: Any, path: str) -> Any:
        """The schema that a ``$ref`` points to.

        Raises:
            GrammarError: it points to no place of the same schema.
        """
        try:
            return self._references.target(reference)
        except LookupError as error:
            self._problems.widen(path, str(error))
            return True

    def options(self, schema: Any, path: str) -> list[Flat]:
        """As :meth:`expand`, without a ``$ref``."""
        return [inner for flat in self.expand(schema, path) for inner in self._inlined(flat, path)]

    def _combined_with(self, keyword: str, branches: Any, flats: list[Flat], path: str) -> list[Flat]:
        if not isinstance(branches, list) or not branches:
            self._problems.widen(path, f"{keyword!r} needs a list of schemas")
            return flats
        expanded = [self.expand(branch, f"{path}/{keyword}/{i}") for i, branch in enumerate(branches)]
        if keyword == "allOf":
            for options in expanded:
                flats = self.combine(flats, options, path)
            return flats
        combined = [self.combine(flats, options, path) for options in expanded]
        if keyword == "oneOf":
            for one, other in combinations(combined, 2):
                if not all(self._branches.disjoint(a, b, path) for a in one for b in other):
                    self._problems.widen(path, f"'oneOf' {_OVERLAP}")
                    break
        return [flat for options in combined for flat in options]

    def _inlined(self, flat: Flat, path: str) -> list[Flat]:
        """The flat schema with its ``$ref`` replaced by the schemas it points to."""
        if "$ref" not in flat:
            return [flat]
        reference = flat["$ref"]
        if reference in self._inlining:
            problem = f"'$ref' to {reference!r} stands next to other keywords and leads back to itself"
            self._problems.widen(path, problem)
            return [{}]
        self._inlining.append(reference)
        try:
            expanded = self.expand(self.target(reference, path), reference)
            return [inner for option in expanded for inner in self._inlined(option, path)]
        finally:
            self._inlining.pop()

    def _merged(self, a: Flat, b: Flat, path: str) -> Flat | None:
        try:
            return merge(a, b)
        except SchemaError as problem:
            self._problems.widen(path, str(problem))
            return merge(a, {key: value for key, value in b.items() if key != "multipleOf"})


def _closed(flat: Flat) -> Flat:
    """The flat schema with ``additionalProperties`` for ``unevaluatedProperties``, which heeds no schemas beside it."""
    if "unevaluatedProperties" not in flat:
        return flat
    kept = {key: value for key, value in flat.items() if key != "unevaluatedProperties"}
    return kept if flat["unevaluatedProperties"] else {"additionalProperties": False, **kept}
