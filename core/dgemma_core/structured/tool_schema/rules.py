"""The Lark rules of one tool's arguments, and whether each of them has a finite text."""

from __future__ import annotations

from collections.abc import Iterable

from dgemma_core.structured.lark import Expr, LarkWriter

_SCALAR = '<|"|> TEXT <|"|> | NUMBER | "true" | "false" | "null"'
# Rules for values without a schema; `any` is any value.
VALUE_RULES = {
    "scalar": _SCALAR,
    "any": f'{_SCALAR} | "[" (any ("," any)*)? "]" | "{{" (KEY ":" any ("," KEY ":" any)*)? "}}"',
    "TEXT": "/(?s:.*)/",
    "INTEGER": "/-?(?:0|[1-9][0-9]*)/",
    # At most two digits of exponent: a larger number could be read as infinity.
    "NUMBER": "/-?(?:0|[1-9][0-9]*)(?:[.][0-9]+)?(?:[eE][+-]?[0-9]{1,2})?/",
    "KEY": "/[A-Za-z_][A-Za-z0-9_]*/",
}


class ValueRules:
    """Adds rules to a grammar and remembers which rules each of them needs.

    Args:
        writer: of the whole grammar.
    """

    def __init__(self, writer: LarkWriter) -> None:
        self._writer = writer
        self._alternatives: dict[str, list[Expr]] = {}  # by rule
        self._paths: dict[str, str] = {}  # places in the schema, by rule

    def new_name(self) -> str:
        """A name for a rule that is defined later."""
        return self._writer.rule_name()

    def define(self, name: str, body: Expr | None, path: str) -> Expr:
        """Define a rule; returns a reference to it.

        Args:
            name: made by :meth:`new_name`.
            body: what the rule stands for; None if no value fits.
            path: its place in the schema.
        """
        self._paths[name] = path
        self._alternatives[name] = [] if body is None else [body]
        self._writer.rules[name] = '""' if body is None else body.text
        return Expr(name, frozenset({name}))

    def either(self, options: Iterable[Expr | None]) -> Expr | None:
        """An alternation of the options that are not None; None if there is none."""
        fitting = list(dict.fromkeys(option for option in options if option is not None))
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        text = " | ".join(option.text for option in fitting)
        if any(not option.needs for option in fitting):
            return Expr(f"({text})")
        # It needs the rules of one option or those of another, so it gets a name of its own.
        name = self._writer.rule(text)
        self._alternatives[name] = fitting
        return Expr(name, frozenset({name}))

    def endless(self) -> str | None:
        """The place in the schema of the first rule without a finite text; None if all rules have one."""
        finite: set[str] = set()
        while True:
            more = {
                name
                for name, options in self._alternatives.items()
                if name not in finite and any(option.needs <= finite for option in options)
            }
            if not more:
                break
            finite |= more
        return next((path for name, path in self._paths.items() if name not in finite), None)
