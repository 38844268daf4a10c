"""Lark text, as ``llguidance`` reads it, put together from rules and terminals."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dgemma_core.structured.hints import HINTS_LINE


@dataclass(frozen=True)
class Expr:
    """Lark for a value, and the rules without which it cannot be completed."""

    text: str
    needs: frozenset[str] = frozenset()


class LarkWriter:
    """Collects the rules and terminals of a grammar; the same ones are written once.

    Args:
        common: bodies of rules and terminals by name, of which a grammar gets what it uses.

    Attributes:
        rules: bodies by name.
        hints: texts that string values may look like.
    """

    def __init__(self, common: Mapping[str, str]) -> None:
        self._common = common
        self.rules: dict[str, str] = {}
        self.hints: set[str] = set()
        self._named: dict[str, str] = {}
        self._terminals: dict[str, str] = {}

    def rule_name(self) -> str:
        """A name of its own for a rule to come."""
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
        """The grammar of which ``start`` is the first rule's body. What it uses of the common ones is added."""
        rules = {"start": start, **self.rules}
        lines = [f"{name}: {body}" for name, body in rules.items()]
        lines += [f"{name}: {body}" for body, name in self._terminals.items()]
        for name, body in self._common.items():
            if any(re.search(rf"\b{name}\b", re.sub(r'"(?:\\.|[^"\\])*"', "", line)) for line in lines):
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
    """An array: items of their own first, then others alike."""
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


@lru_cache(maxsize=1024)
def problem_of(lark: str) -> str:
    """What ``llguidance`` has to say against a grammar; empty if nothing."""
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_lark(lark))
    return "; ".join(str(m).strip().splitlines()[0] for m in messages) if failed or messages else ""


@lru_cache(maxsize=1024)
def matches_text(terminal: str) -> bool | None:
    """Whether a terminal matches any text but the empty one; None if it matches nothing at all."""
    from llguidance import LLMatcher, LLTokenizer

    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(f"start: T\nT: {terminal}"), log_level=0)
    if matcher.is_error():
        return True  # The whole grammar will tell.
    mask = int.from_bytes(matcher.compute_bitmask(), "little") & ~(1 << tokenizer.eos_token)
    if matcher.is_error() or not mask:  # A state in which nothing can follow is an error there.
        return False if not matcher.is_error() and matcher.is_accepting() else None
    return True
