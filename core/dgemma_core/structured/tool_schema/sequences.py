"""Lark for some of the given items, with commas between them, each at most once."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from dgemma_core.structured.lark import Expr, LarkWriter

MOST_STATES = 4096
_MOST_ORDERS = 512  # states, if items may come in any order


class SequenceWriter:
    """Writes sequences of items, of which a number between two limits must be there.

    Args:
        writer: of the whole grammar.
        items: Lark for each item, and whether it is required.
        low: items at least.
        high: items at most.
    """

    def __init__(self, writer: LarkWriter, items: Sequence[tuple[Expr, bool]], low: int, high: int | None) -> None:
        self._writer = writer
        self._items = items
        self._low = low
        self._high = len(items) if high is None else min(high, len(items))
        self._known: dict[tuple[int, int], str | None] = {}

    def text(self, any_order: bool) -> str | None:
        """Lark for the sequences; None if there is none, or if there are too many to write.

        Args:
            any_order: whether the items may come in any order. If there are too many of them, they come in their own.
        """
        count = len(self._items)
        if any_order and sum(comb(count, chosen) for chosen in range(self._high + 1)) <= _MOST_ORDERS:
            return self._of_remaining((1 << count) - 1, 0)
        if count * (self._high + 1) > MOST_STATES:
            return None
        return self._in_order(0, 0)

    def _of_remaining(self, remaining: int, chosen: int) -> str | None:
        """What may follow so many chosen items if these remain, as bits."""
        key = (remaining, 0)
        if key not in self._known:
            options = []
            for index in range(len(self._items) if chosen < self._high else 0):
                if remaining >> index & 1:
                    more = self._of_remaining(remaining & ~(1 << index), chosen + 1)
                    options.append(self._joined(index, chosen, more))
            self._known[key] = self._either(options, chosen >= self._low)
        return self._known[key]

    def _in_order(self, index: int, chosen: int) -> str | None:
        """What may follow so many chosen items if those from an index on remain."""
        for start in reversed(range(index, len(self._items) + 1)):
            key = (start, chosen)
            if key in self._known:
                continue
            if start == len(self._items):
                self._known[key] = "" if chosen >= self._low else None
                continue
            options = []
            if chosen < self._high:
                options.append(self._joined(start, chosen, self._in_order(start + 1, chosen + 1)))
            rest = None if self._items[start][1] else self._known[start + 1, chosen]
            self._known[key] = self._either([*options, rest], rest == "")
        return self._known[index, chosen]

    def _joined(self, index: int, chosen: int, more: str | None) -> str | None:
        comma = '"," ' if chosen else ""
        return None if more is None else f"{comma}{self._items[index][0].text} {more}".strip()

    def _either(self, options: Sequence[str | None], may_end: bool) -> str | None:
        written = [option for option in options if option]
        if not written:
            return "" if may_end else None
        rule = self._writer.rule(" | ".join(written))
        return f"{rule}?" if may_end else rule
