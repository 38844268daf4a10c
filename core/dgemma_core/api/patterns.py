r"""Patterns in the dialects of Python and JavaScript as regular expressions in llguidance's.

The dialects differ in what ``\d``, ``\w``, ``\s``, ``.`` and ``$`` mean. A translated pattern matches only texts that
both Python and JavaScript take.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dgemma_core.api.surrogates import without_escaped_surrogates, without_surrogates

_MOST_SEQUENCES = 256
_HARMLESS_FLAGS = re.UNICODE | re.ASCII | re.VERBOSE
_KNOWN_FLAGS = _HARMLESS_FLAGS | re.IGNORECASE | re.DOTALL

_ASCII_SETS = {"digit": "0-9", "space": r"\x{9}-\x{d}\x{20}", "word": "A-Za-z0-9_"}
# What any dialect counts among the set. llguidance reads \d, \s and \w as ASCII, so they are spelled out.
_LARGE_SETS = {
    "digit": r"\p{Nd}",
    "space": r"\p{White_Space}\x{1c}-\x{1f}\x{180e}\x{feff}",
    "word": r"\p{Alphabetic}\p{M}\p{N}\p{Pc}\p{Join_Control}",
}
# Python has no \p{...}: while it parses a pattern, characters of a private plane stand for them.
_FIRST_STAND_IN = 0x10F000
_FOREIGN = re.compile(
    r"\\(?:([pP])(\{[A-Za-z0-9_=: -]+\}|[A-Za-z])|u\{([0-9A-Fa-f]{1,6})\}|c([A-Za-z])|(.))|\(\?<(?![=!])", re.S
)


def whole_regex(pattern: str, search: bool = True) -> str:
    r"""A regular expression (llguidance's) for the whole texts in which a pattern is found.

    Args:
        pattern: in the dialect of JavaScript or Python, which may begin with ``(?i)`` and contain ``\p{...}``.
        search: whether the pattern may be found anywhere in a text; otherwise the whole text must match it.

    Raises:
        ValueError: look-around, back references, flags other than ``i`` and ``s``, or anchors in the middle.
    """
    known, stand_ins = _readable(without_surrogates(without_escaped_surrogates(pattern)))
    try:
        tree = re._parser.parse(known)  # type: ignore[attr-defined]
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"it cannot be parsed ({error})") from error
    if tree.state.flags & ~_KNOWN_FLAGS:
        raise ValueError("flags other than i and s are not supported")
    writer = _Writer(stand_ins, bool(tree.state.flags & re.IGNORECASE), bool(tree.state.flags & re.DOTALL))
    wholes = []
    for items in _sequences(list(tree)):
        left, right = _is_anchor(items[:1], "beginning"), _is_anchor(items[-1:], "end")
        while _is_anchor(items[:1], "beginning"):
            items = items[1:]
        while _is_anchor(items[-1:], "end"):
            items = items[:-1]
        inner = writer.regex(items)
        wholes.append(f"{'' if left or not search else '(?s:.*)'}{inner}{'' if right or not search else '(?s:.*)'}")
    return "|".join(f"(?:{whole})" for whole in wholes) if len(wholes) > 1 else wholes[0]


def _readable(pattern: str) -> tuple[str, dict[int, str]]:
    """The pattern as Python can parse it, and what its stand-in characters stand for."""
    stand_ins: dict[int, str] = {}

    def replaced(match: re.Match[str]) -> str:
        kind, name, code, control, other = match.groups()
        if kind:
            character = _FIRST_STAND_IN + len(stand_ins)
            stand_ins[character] = f"\\{kind}{name}"
            return chr(character)
        if code or control:
            number = int(code, 16) if code else ord(control) % 32
            if number > 0x10FFFF:
                raise ValueError(f"it cannot be parsed (no character has the code {code})")
            return f"\\U{number:08x}"
        if other is None:
            return "(?P<"
        # JavaScript takes a backslash before any character, Python before all but unknown ASCII letters.
        return match[0]

    return _FOREIGN.sub(replaced, pattern), stand_ins


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


@dataclass(frozen=True)
class _Writer:
    """Writes a parsed pattern.

    Args:
        stand_ins: character codes and what they stand for.
        ignore_case: whether letters also match in the other case.
        dot_all: whether a dot matches line breaks.
    """

    stand_ins: dict[int, str]
    ignore_case: bool
    dot_all: bool

    def regex(self, items: Iterable[Any]) -> str:
        """Items one after the other."""
        return "".join(self._item(_op(item), item[1]) for item in items)

    def _item(self, op: str, value: Any) -> str:
        if op == "literal":
            cases = self._cases(value)
            return cases if len(self._variants(value)) == 1 else f"[{cases}]"
        if op == "not_literal":
            return self._set([("negate", None), ("literal", value)])
        if op == "any":
            return "(?s:.)" if self.dot_all else r"[^\x{a}\x{d}\x{2028}\x{2029}]"
        if op == "in":
            return self._set(value)
        if op == "branch":
            return f"(?:{'|'.join(self.regex(branch) for branch in value[1])})"
        if op == "subpattern":
            return f"(?:{self._with_flags(value[1], value[2]).regex(value[-1])})"
        if op in ("max_repeat", "min_repeat"):
            low, high, inner = value
            most = "" if str(high) == "MAXREPEAT" else high
            return f"(?:{self.regex(inner)}){{{low},{most}}}"
        if op == "at":
            raise ValueError("an anchor or a word boundary stands in the middle")
        raise ValueError(f"{op.replace('_', ' ')} is not supported")

    def _with_flags(self, added: int, removed: int) -> _Writer:
        if (added | removed) & ~_KNOWN_FLAGS:
            raise ValueError("flags other than i and s are not supported")
        cased = (self.ignore_case or bool(added & re.IGNORECASE)) and not removed & re.IGNORECASE
        dotted = (self.dot_all or bool(added & re.DOTALL)) and not removed & re.DOTALL
        return _Writer(self.stand_ins, cased, dotted)

    def _variants(self, code: int) -> list[int]:
        """The codes of a character, and of its other case where all dialects agree on it."""
        char = chr(code)
        if not self.ignore_case or code in self.stand_ins:
            return [code]
        cases = (char, char.lower(), char.upper())
        return sorted({ord(c) for c in cases if len(c) == 1 and c.lower() == char.lower()})

    def _cases(self, code: int) -> str:
        return "".join(self._character(variant) for variant in self._variants(code))

    def _character(self, code: int) -> str:
        if code in self.stand_ins:
            return self.stand_ins[code]
        char = chr(code)
        return char if char.isascii() and char.isalnum() else f"\\x{{{code:x}}}"

    def _set(self, items: Sequence[Any]) -> str:
        negated = _op(items[0]) == "negate"
        parts = []
        for item in items[1:] if negated else items:
            op, value = _op(item), item[1]
            if op == "literal":
                parts.append(self._cases(value))
            elif op == "range":
                parts.append(self._range(*value))
            else:
                parts.append(_category(str(value).lower().removeprefix("category_"), negated))
        written = f"[{'^' if negated else ''}{''.join(parts)}]"
        # What one dialect leaves out in any case must be left out: llguidance folds as Unicode says.
        return f"(?i:{written})" if negated and self.ignore_case else written

    def _range(self, low: int, high: int) -> str:
        if low in self.stand_ins or high in self.stand_ins:
            raise ValueError("a character class ends a range")
        found = f"{self._character(low)}-{self._character(high)}"
        if self.ignore_case:
            for first, last, to in ((97, 122, -32), (65, 90, 32)):
                start, end = max(low, first), min(high, last)
                if start <= end:
                    found += f"{chr(start + to)}-{chr(end + to)}"
        return found


def _category(name: str, negated: bool) -> str:
    kind = name.removeprefix("not_")
    # The smaller of the dialects' sets where the set is asked for, the larger where it is excluded.
    if name == kind:
        return _LARGE_SETS[kind] if negated else _ASCII_SETS[kind]
    return f"[^{_ASCII_SETS[kind]}]" if negated else f"[^{_LARGE_SETS[kind]}]"
