"""A Lark grammar, in llguidance's dialect, put together from rules and terminals."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dgemma_core.structured.hints import HINTS_LINE

# A string, or the control token for quotes, which has a quote in its name.
_LITERAL = re.compile(r'<\|"\|>|"(?:\\.|[^"\\])*"')


@dataclass(frozen=True)
class Expr:
    """Lark for a value.

    Attributes:
        text: the Lark.
        needs: names of the rules without which no text of it can be completed.
    """

    text: str
    needs: frozenset[str] = frozenset()


class LarkWriter:
    """Collects the rules and terminals of a grammar; equal ones are written once.

    Args:
        common: bodies of rules and terminals by name; a grammar gets those it uses.

    Attributes:
        rules: bodies by name.
        hints: texts that fit a string of the grammar.
    """

    def __init__(self, common: Mapping[str, str]) -> None:
        self._common = common
        self.rules: dict[str, str] = {}
        self.hints: set[str] = set()
        self._named: dict[str, str] = {}
        self._terminals: dict[str, str] = {}

    def rule_name(self) -> str:
        """A new name for a rule that is written later."""
        self.rules[name := f"r{len(self.rules)}"] = ""
        return name

    def rule(self, body: str) -> str:
        """The name of a rule with this body."""
        if body not in self._named:
            self._named[body] = self.rule_name()
            self.rules[self._named[body]] = body
        return self._named[body]

    def terminal(self, body: str) -> str:
        """The name of a terminal with this body."""
        return self._terminals.setdefault(body, f"T{len(self._terminals)}")

    def text(self, start: str) -> str:
        """The grammar whose first rule has the body ``start``, with the common rules and terminals that it uses."""
        rules = {"start": start, **self.rules}
        lines = [f"{name}: {body}" for name, body in rules.items()]
        lines += [f"{name}: {body}" for body, name in self._terminals.items()]
        for name, body in self._common.items():
            if any(re.search(rf"\b{name}\b", _LITERAL.sub("", line)) for line in lines):
                lines.append(f"{name}: {body}")
        if self.hints:
            lines.insert(0, HINTS_LINE + json.dumps(sorted(self.hints, key=lambda h: (len(h), h))))
        return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A string literal."""
    return json.dumps(text, ensure_ascii=False)


def joined(parts: Sequence[str]) -> str:
    """Parts with commas between them."""
    return ' "," '.join(parts)


def repeated(unit: str, low: int, high: int | None) -> str:
    """``low`` to ``high`` units, without a limit if ``high`` is None."""
    if high == 0:
        return ""
    if high is None:
        return f"{unit}*" if low == 0 else f"{unit}{{{low},}}"
    return f"{unit}{{{low},{high}}}"


def list_of(heads: list[Expr], rest: Expr | None, low: int, high: int | None) -> Expr:
    """An array.

    Args:
        heads: the first items, each with Lark of its own.
        rest: the items after them; None if there are none.
        low: items at least.
        high: items at most; None for no limit.
    """
    heads = heads[:high]
    needs = frozenset(need for head in heads[:low] for need in head.needs)
    if rest is not None and low > len(heads):
        needs |= rest.needs
    inner = ""
    if rest is not None and (high is None or high > len(heads)):
        least, most = max(low - len(heads), 0), None if high is None else high - len(heads)
        if heads:
            inner = repeated(f'("," {rest.text})', least, most)
        else:
            more = repeated(f'("," {rest.text})', max(least - 1, 0), None if most is None else most - 1)
            inner = f"{rest.text} {more}".strip()
            inner = inner if least else f"({inner})?"
    for index in reversed(range(len(heads))):
        comma = '"," ' if index else ""
        inner = f"{comma}{heads[index].text} {inner}".strip()
        inner = inner if index < low else f"({inner})?"
    return Expr(f'"[" {inner} "]"' if inner else '"[" "]"', needs)
