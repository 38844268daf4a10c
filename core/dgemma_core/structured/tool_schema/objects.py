"""Lark for objects: those with known keys, and those with any keys."""

from __future__ import annotations

from dgemma_core.structured.lark import Expr, LarkWriter, repeated
from dgemma_core.structured.tool_schema.keywords import Flat
from dgemma_core.structured.tool_schema.problems import Problems
from dgemma_core.structured.tool_schema.sequences import SequenceWriter

Entry = tuple[Expr, bool]
"""Lark for a key and its value, and whether the key is required."""


class ObjectWriter:
    """Writes Lark for objects whose values are already written.

    Args:
        writer: of the whole grammar.
        problems: of the tool.
    """

    def __init__(self, writer: LarkWriter, problems: Problems) -> None:
        self._writer = writer
        self._problems = problems

    def record(self, entries: list[Entry], flat: Flat, path: str) -> Expr | None:
        """An object of known keys, in the order of ``entries``; None if no object has the size asked for.

        Raises:
            GrammarError: a size for which optional keys would have to be counted.
        """
        low, high = flat.get("minProperties", 0), flat.get("maxProperties")
        needed = sum(must for _, must in entries)
        if low > len(entries) or (high is not None and high < needed):
            return None
        if low == len(entries):
            entries, needed = [(entry, True) for entry, _ in entries], len(entries)
        elif high == needed:
            entries = [(entry, must) for entry, must in entries if must]
        if low > max(needed, 1) or (high is not None and high < len(entries)):
            counted = SequenceWriter(self._writer, entries, low, high).text(any_order=False)
            if counted is not None:
                needs = frozenset(need for entry, must in entries if must for need in entry.needs)
                return Expr(f'"{{" {counted} "}}"', needs)
            self._problems.widen(path, f"'minProperties' of {low} and 'maxProperties' of {high} cannot be enforced")
        if not entries:
            return Expr('"{" "}"')
        if not needed:
            inner = self._at_least_one(entries)
            return Expr(f'"{{" {inner} "}}"' if low else f'"{{" {inner}? "}}"')
        first = next(index for index, (_, must) in enumerate(entries) if must)
        parts = [f'({entry.text} ",")?' for entry, _ in entries[:first]]
        parts.append(entries[first][0].text)
        parts += [f'"," {entry.text}' if must else f'("," {entry.text})?' for entry, must in entries[first + 1 :]]
        needs = frozenset(need for entry, must in entries if must for need in entry.needs)
        return Expr(f'"{{" {" ".join(parts)} "}}"', needs)

    def map_of(self, entry: Expr | None, flat: Flat, path: str) -> Expr | None:
        """An object of any keys; None if no object has the size asked for.

        Args:
            entry: Lark for a key and its value; None if there can be none.
            flat: the object's schema.
            path: its place, for errors.

        Raises:
            GrammarError: a least size above 1.
        """
        low, high = flat.get("minProperties", 0), flat.get("maxProperties")
        if entry is None or high == 0:
            return None if low else Expr('"{" "}"')
        if low > 1:  # A grammar cannot compare keys: one key written twice would count as two.
            self._problems.widen(path, f"'minProperties' of {low} cannot be enforced")
        more = repeated(f'("," {entry.text})', 0, None if high is None else high - 1)
        inner = f"{entry.text} {more}".strip()
        return Expr(f'"{{" {inner} "}}"', entry.needs) if low else Expr(f'"{{" ({inner})? "}}"')

    def _at_least_one(self, entries: list[Entry]) -> str:
        """One or more of the entries in their order: a rule per entry for the entries that may follow it."""
        tail, options = "", []
        for entry, _ in reversed(entries):
            options.append(f"{entry.text} {tail}".strip())
            tail = self._writer.rule(f'("," {entry.text})? {tail}'.strip())
        return f"({' | '.join(reversed(options))})"
