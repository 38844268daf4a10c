"""Patterns of JSON Schema as regular expressions for whole texts.

llguidance does this itself for strings in JSON's quotes. In a tool call, strings are unescaped, between control tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_MOST_SEQUENCES = 256

_ASCII_SETS = {"digit": "0-9", "space": r"\x{9}-\x{d}\x{20}", "word": "A-Za-z0-9_"}
_UNICODE_SETS = {"digit": r"\d", "space": r"\s", "word": r"\w"}


def whole_regex(pattern: str) -> str:
    r"""A regular expression (llguidance's) for the whole texts in which a pattern is found.

    Args:
        pattern: in the dialect of JavaScript or Python. Where the two differ (``\d`` and the like), the result matches
            only texts in which both find the pattern.

    Raises:
        ValueError: look-around, back references, flags, or anchors in the middle.
    """
    try:
        tree = re._parser.parse(pattern)  # type: ignore[attr-defined]
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"it cannot be parsed ({error})") from error
    if tree.state.flags & ~re.UNICODE:
        raise ValueError("flags are not supported")
    wholes = []
    for items in _sequences(list(tree)):
        left, right = _is_anchor(items[:1], "beginning"), _is_anchor(items[-1:], "end")
        while _is_anchor(items[:1], "beginning"):
            items = items[1:]
        while _is_anchor(items[-1:], "end"):
            items = items[:-1]
        inner = _regex(items)
        wholes.append(f"{'' if left else '(?s:.*)'}{inner}{'' if right else '(?s:.*)'}")
    return "|".join(f"(?:{whole})" for whole in wholes) if len(wholes) > 1 else wholes[0]


def _op(item: Any) -> str:
    return str(item[0]).lower()


def _is_anchor(items: Sequence[Any], which: str) -> bool:
    return bool(items) and _op(items[0]) == "at" and str(items[0][1]).lower() in (f"at_{which}", f"at_{which}_string")


def _has_anchor(item: Any) -> bool:
    op, value = _op(item), item[1]
    if op == "at":
        return True
    if op == "subpattern":
        return any(map(_has_anchor, value[-1]))
    if op == "branch":
        return any(_has_anchor(inner) for branch in value[1] for inner in branch)
    if op.endswith("_repeat"):
        return any(map(_has_anchor, value[2]))
    return False


def _sequences(items: Sequence[Any]) -> list[list[Any]]:
    """The pattern as alternatives, in each of which every anchor is at the top level."""
    found: list[list[Any]] = [[]]
    for item in items:
        op, value = _op(item), item[1]
        if op == "at" or not _has_anchor(item):
            options = [[item]]
        elif op == "branch":
            options = [sequence for branch in value[1] for sequence in _sequences(branch)]
        elif op == "subpattern" and not value[1] and not value[2]:
            options = _sequences(value[-1])
        else:
            raise ValueError("an anchor is repeated")
        found = [[*before, *option] for before in found for option in options]
        if len(found) > _MOST_SEQUENCES:
            raise ValueError("too many alternatives around anchors")
    return found


def _regex(items: Iterable[Any]) -> str:
    return "".join(_regex_item(_op(item), item[1]) for item in items)


def _regex_item(op: str, value: Any) -> str:
    if op == "literal":
        return _character(value)
    if op == "not_literal":
        return f"[^{_character(value)}]"
    if op == "any":
        return r"[^\x{a}\x{d}\x{2028}\x{2029}]"
    if op == "in":
        return _set(value)
    if op == "branch":
        return f"(?:{'|'.join(_regex(branch) for branch in value[1])})"
    if op == "subpattern":
        if value[1] or value[2]:
            raise ValueError("flags are not supported")
        return f"(?:{_regex(value[-1])})"
    if op in ("max_repeat", "min_repeat"):
        low, high, inner = value
        most = "" if str(high) == "MAXREPEAT" else high
        return f"(?:{_regex(inner)}){{{low},{most}}}"
    if op == "at":
        raise ValueError("an anchor or a word boundary stands in the middle")
    raise ValueError(f"{op.replace('_', ' ')} is not supported")


def _character(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\x{{{code:x}}}"


def _set(items: Sequence[Any]) -> str:
    negated = _op(items[0]) == "negate"
    parts = []
    for item in items[1:] if negated else items:
        op, value = _op(item), item[1]
        if op == "literal":
            parts.append(_character(value))
        elif op == "range":
            parts.append(f"{_character(value[0])}-{_character(value[1])}")
        else:
            parts.append(_category(str(value).lower().removeprefix("category_"), negated))
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _category(name: str, negated: bool) -> str:
    kind = name.removeprefix("not_")
    # The smaller of the two dialects' sets where the set is asked for, the larger where it is excluded.
    if name == kind:
        return _UNICODE_SETS[kind] if negated else _ASCII_SETS[kind]
    return f"[^{_ASCII_SETS[kind]}]" if negated else _UNICODE_SETS[kind].upper()
