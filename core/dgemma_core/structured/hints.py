r"""Short texts that fit the patterns and formats of a schema; the search for a string's end tries them first.

A grammar's state says which bytes may come next, but not which of them lead out of ``.*\.png``. The schema does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dgemma_core.api.formats import FORMATS

# The first line of a Lark grammar may be this comment, followed by a JSON list of hints.
HINTS_LINE = "// hints: "

_SETS = {"category_digit": "0", "category_space": " ", "category_word": "a", "category_not_digit": "a"}


def string_hints(source: str) -> tuple[str, ...]:
    """Texts that fit strings of a grammar, the shortest first.

    Args:
        source: of a grammar. For a JSON Schema, each hint fits one of its patterns or formats; for a Lark grammar, the
            hints are those listed in its first line; other sources have none.
    """
    listed = source.startswith(HINTS_LINE)
    try:
        content = json.loads(source.partition("\n")[0].removeprefix(HINTS_LINE) if listed else source)
    except json.JSONDecodeError:
        return ()
    found = {hint for hint in (content if listed else _samples_in(content)) if hint and isinstance(hint, str)}
    return tuple(sorted(found, key=lambda hint: (len(hint), hint)))


def _samples_in(node: Any) -> Iterator[str]:
    """A text for every pattern and format in a schema; empty where there is none."""
    if isinstance(node, list):
        for item in node:
            yield from _samples_in(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("pattern"), str):
        yield sample(node["pattern"]) or ""
    if isinstance(node.get("format"), str):
        yield FORMATS[node["format"]].sample if node["format"] in FORMATS else ""
    for value in node.values():
        yield from _samples_in(value)


def sample(pattern: str) -> str | None:
    """A short text in which ``pattern`` is found, or None if none was found for it."""
    try:
        # Python's private parser of patterns. If it changes, only hints are lost: some endings take longer to find.
        tree = re._parser.parse(pattern)  # type: ignore[attr-defined]
        text = _shortest(tree)
    except Exception:
        return None
    return text if re.search(pattern, text) else None


def _shortest(tree: Any) -> str:
    return "".join(_item(str(op).lower(), value) for op, value in tree)


def _item(op: str, value: Any) -> str:
    if op == "literal":
        return chr(value)
    if op == "any":
        return "a"
    if op == "not_literal":
        return "a" if value != ord("a") else "b"
    if op == "in":
        return _member(value)
    if op == "branch":
        return min((_shortest(branch) for branch in value[1]), key=len)
    if op == "subpattern":
        return _shortest(value[-1])
    if op in ("max_repeat", "min_repeat", "possessive_repeat"):
        low, _, inner = value
        return _shortest(inner) * int(low)
    return ""  # Anchors and look-around match no characters; the caller checks whether they hold.


def _member(items: Any) -> str:
    parts = [(str(op).lower(), value) for op, value in items]
    if parts[0][0] == "negate":
        banned = {chr(v) for op, v in parts if op == "literal"}
        ranges = [v for op, v in parts if op == "range"]
        for char in "a0A-_ ":
            if char not in banned and not any(low <= ord(char) <= high for low, high in ranges):
                return char
        raise ValueError("no simple character outside this set")
    op, value = parts[0]
    if op == "literal":
        return chr(value)
    if op == "range":
        return chr(value[0])
    return _SETS[str(value).lower()]
