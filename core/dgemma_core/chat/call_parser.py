"""Reads the text of a tool call: its name and its arguments.

A call reads ``call:name{key:value,...}``. Strings stand between control tokens, everything else is text; so a call is
given in parts, cut at these control tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

MAX_DEPTH = 64
"""Levels of objects and arrays a call's arguments may have, the arguments themselves included."""

_BLANKS = " \t\r\n"
_STRUCTURE = "{}[],:"
_STRING = "string"  # What `_peek` returns at a string; no single character equals it.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_CONSTANTS = {"true": True, "false": False, "null": None}


def parse_call(parts: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Read the text between a call's opening and closing control token.

    Args:
        parts: that text, cut at each string delimiter: structure at even indices, string contents at odd ones.

    Returns:
        The tool's name and its arguments.

    Raises:
        ValueError: the call is malformed, or nested deeper than :data:`MAX_DEPTH`.
    """
    if len(parts) % 2 == 0:
        raise ValueError("a string is not closed")
    return _Parser(parts).call()


class _Parser:
    """Recursive descent over the parts of one call."""

    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = parts
        self._part = 0  # Always even: a string is read at once.
        self._at = 0

    def call(self) -> tuple[str, dict[str, Any]]:
        if self._word() != "call":
            raise ValueError("a call begins with call:")
        self._take(":")
        name = self._word()
        if not name:
            raise ValueError("the call names no tool")
        arguments = self._object(1)
        if self._peek():
            raise ValueError("something follows the arguments")
        return name, arguments

    def _value(self, depth: int) -> Any:
        ahead = self._peek()
        if ahead == _STRING:
            return self._string()
        if ahead == "{":
            return self._object(depth + 1)
        if ahead == "[":
            return self._array(depth + 1)
        return _scalar(self._word())

    def _object(self, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for _ in self._items("{", "}", depth):
            # The template writes keys bare, but a model may quote one, and the meaning is clear.
            quoted = self._peek() == _STRING
            key = self._string() if quoted else self._word()
            if not key and not quoted:
                raise ValueError("a key is missing")
            self._take(":")
            out[key] = self._value(depth)
        return out

    def _array(self, depth: int) -> list[Any]:
        return [self._value(depth) for _ in self._items("[", "]", depth)]

    def _items(self, opening: str, closing: str, depth: int) -> Iterator[None]:
        """Read brackets and commas; yields at every item, for the caller to read it."""
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        self._take(opening)
        if self._peek() != closing:
            yield
            while self._peek() == ",":
                self._take(",")
                yield
        self._take(closing)

    def _peek(self) -> str:
        """The next character that is not blank, ``_STRING`` at a string, or an empty text at the end."""
        text = self._parts[self._part]
        while self._at < len(text) and text[self._at] in _BLANKS:
            self._at += 1
        if self._at < len(text):
            return text[self._at]
        return _STRING if self._part + 1 < len(self._parts) else ""

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise ValueError(f"expected {character}")
        self._at += 1

    def _string(self) -> str:
        text = self._parts[self._part + 1]
        self._part, self._at = self._part + 2, 0
        return text

    def _word(self) -> str:
        """The characters up to the next one of ``{}[],:``, stripped of blanks; may be empty."""
        self._peek()
        text, start = self._parts[self._part], self._at
        while self._at < len(text) and text[self._at] not in _STRUCTURE:
            self._at += 1
        return text[start : self._at].strip(_BLANKS)


def _scalar(word: str) -> bool | int | float | None:
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    match = _NUMBER.fullmatch(word)
    if match is None:
        raise ValueError(f"{word[:20]!r} is no value")
    if match.group(1) is None and match.group(2) is None:
        return int(word)  # A ValueError if it has more digits than Python converts.
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word[:20]!r} is out of range")
    return number
