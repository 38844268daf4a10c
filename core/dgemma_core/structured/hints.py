r"""Short texts that fit the patterns and formats a schema names: where to look first for the end of a string.

A state of the grammar engine says which byte may come next, not which leads out of ``.*\.png``. The schema does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# A grammar in Lark may begin with a comment of this beginning and a JSON list of hints.
HINTS_LINE = "// hints: "

FORMAT_SAMPLES = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "a@b.co",
    "hostname": "a",
    "ipv4": "0.0.0.0",
    "ipv6": "::1",
    "uri": "a:b",
    "uuid": "00000000-0000-0000-0000-000000000000",
}
_SETS = {"category_digit": "0", "category_space": " ", "category_word": "a", "category_not_digit": "a"}


def string_hints(source: str) -> tuple[str, ...]:
    """Texts, shortest first, each of which fits some pattern or format of a JSON Schema or is named in a Lark grammar.

    There are none for other sources.
    """
    listed = source.startswith(HINTS_LINE)
    try:
        content = json.loads(source.partition("\n")[0].removeprefix(HINTS_LINE) if listed else source)
    except json.JSONDecodeError:
        return ()
    found = {hint for hint in (content if listed else _walk(content)) if hint and isinstance(hint, str)}
    return tuple(sorted(found, key=lambda hint: (len(hint), hint)))


def _walk(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _walk(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("pattern"), str):
        yield sample(node["pattern"]) or ""
    if isinstance(node.get("format"), str):
        yield FORMAT_SAMPLES.get(node["format"], "")
    for value in node.values():
        yield from _walk(value)


def sample(pattern: str) -> str | None:
    """A short text that ``pattern`` finds a match in, or None if the pattern is beyond this."""
    try:
        # Python's own parser of patterns; hints are a convenience, so a change in it costs nothing but them.
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
    return ""  # Anchors and look-around take no room; whether they hold is checked at the end.


def _member(items: Any) -> str:
    parts = [(str(op).lower(), value) for op, value in items]
    if parts[0][0] == "negate":
        banned = {chr(v) for op, v in parts if op == "literal"}
        ranges = [v for op, v in parts if op == "range"]
        for char in "a0A-_ ":
            if char not in banned and not any(low <= ord(char) <= high for low, high in ranges):
                return char
        raise ValueError("no simple character outside of this set")
    op, value = parts[0]
    if op == "literal":
        return chr(value)
    if op == "range":
        return chr(value[0])
    return _SETS[str(value).lower()]
