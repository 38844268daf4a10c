"""Gemma 4's wire format of an assistant turn: text, reasoning and tool calls told apart by control tokens.

Reasoning stands between ``<|channel>`` and ``<channel|>``, after a header line ``thought``. A call reads
``<|tool_call>call:name{key:value,...}<tool_call|>`` with strings between two ``<|"|>``. Only the control tokens
themselves count; the same characters spelled in ordinary tokens are text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 64
"""Levels of objects and arrays a call's arguments may have, the arguments themselves included."""

_QUOTE = '<|"|>'
_CALL_OPEN, _CALL_CLOSE = "<|tool_call>", "<tool_call|>"
_CHANNEL_OPEN, _CHANNEL_CLOSE = "<|channel>", "<channel|>"
_HEADER = "thought"
_OFF = -1  # An id no token has.
_BLANKS = " \t\r\n"
_STRUCTURE = "{}[],:"
_STRING = "string"  # What the parser sees ahead where a string literal begins; no single character equals it.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_CONSTANTS = {"true": True, "false": False, "null": None}


def format_value(value: Any) -> str:
    """A JSON value as the chat template writes it in a call.

    Args:
        value: str, bool, None, a number, or mappings and sequences of these. Keys are written bare: one that is empty,
            begins or ends with a blank, or contains any of ``{}[],:`` cannot be read back.
    """
    if isinstance(value, str):
        return f"{_QUOTE}{value}{_QUOTE}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        # Jinja's dictsort: lower-cased keys decide, ties keep their order.
        keys = sorted(value, key=lambda key: key.lower() if isinstance(key, str) else key)
        return "{" + ",".join(f"{key}:{format_value(value[key])}" for key in keys) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(format_value, value)) + "]"
    return str(value)


def format_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A tool call as the chat template writes it, control tokens spelled out.

    Control tokens' spellings inside names and strings are not escaped here; ``ChatTemplate`` does that.

    Args:
        name: the tool's name.
        arguments: JSON values, see :func:`format_value`.
    """
    return f"{_CALL_OPEN}call:{name}{format_value(arguments)}{_CALL_CLOSE}"


def parse_call(parts: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Read what stands between a call's two control tokens.

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
        self._part = 0  # Always even: strings are taken whole.
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
            # The template writes keys bare, yet a quoted one can mean only one thing.
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
        """Take brackets and commas; yields where an item is to be read."""
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
        """What comes next after blanks: a character, ``_STRING``, or nothing at the end."""
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
        """A run of characters without structure, blanks around it left out; may be empty."""
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
        return int(word)  # A ValueError where it has more digits than Python converts.
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word[:20]!r} is out of range")
    return number


@dataclass(frozen=True)
class Controls:
    """Ids of the control tokens one tokenizer has; what it lacks is off.

    Attributes:
        channel_open, channel_close, call_open, call_close, quote: ids, -1 where the tokenizer has no such token (a pair
            is off as a whole).
        special: ids of all the tokenizer's special tokens.
    """

    channel_open: int
    channel_close: int
    call_open: int
    call_close: int
    quote: int
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> Controls:
        """Look them up by spelling."""
        channel = _pair(tokenizer, _CHANNEL_OPEN, _CHANNEL_CLOSE)
        call = _pair(tokenizer, _CALL_OPEN, _CALL_CLOSE)
        quote = _id(tokenizer, _QUOTE) if call[0] != _OFF else _OFF
        return cls(*channel, *call, quote, frozenset(tokenizer.all_special_ids))

    @property
    def wire(self) -> frozenset[int]:
        """Those of the wire format that the tokenizer has."""
        return frozenset((*self.openings, self.channel_close, self.call_close, self.quote)) - {_OFF}

    @property
    def openings(self) -> frozenset[int]:
        """Those that begin reasoning or a call."""
        return frozenset((self.channel_open, self.call_open)) - {_OFF}


def _id(tokenizer: Any, spelling: str) -> int:
    found = tokenizer.convert_tokens_to_ids(spelling)
    # Where there is no such token, tokenizers answer None or the id of their unknown token.
    if found is None or tokenizer.convert_ids_to_tokens(found) != spelling:
        return _OFF
    return int(found)


def _pair(tokenizer: Any, opening: str, closing: str) -> tuple[int, int]:
    ids = _id(tokenizer, opening), _id(tokenizer, closing)
    return (_OFF, _OFF) if _OFF in ids else ids


@dataclass(frozen=True)
class Call:
    """A well-formed tool call.

    Attributes:
        name: the tool's name.
        arguments: JSON values.
        end: the turn's tokens up to and with the call.
    """

    name: str
    arguments: dict[str, Any]
    end: int


@dataclass(frozen=True)
class Thought:
    """A block of reasoning that is not empty.

    Attributes:
        text: without its header, blanks around it left out.
        end: the turn's tokens up to and with the block.
        tokens: those of the block, its header and control tokens included.
    """

    text: str
    end: int
    tokens: int


class Turn:
    """One assistant turn, told apart as its tokens arrive.

    What it has told stays: the lists only grow. Reasoning and calls are held back until they close. A malformed call,
    or one that another opening or the turn's end cuts off, is visible text; reasoning cut off by the turn's end is
    reasoning. What stands inside reasoning, calls included, is reasoning.

    Args:
        tokenizer: the checkpoint's tokenizer.
        controls: its control tokens, if looked up already.

    Attributes:
        tokens: all ids so far.
        visible: positions in ``tokens`` of what is text, ascending; the wire format's control tokens are never in it.
        calls: finished calls.
        thoughts: finished reasoning.
    """

    def __init__(self, tokenizer: Any, controls: Controls | None = None) -> None:
        self._tokenizer = tokenizer
        self._controls = controls or Controls.of(tokenizer)
        self._wire = self._controls.wire
        self._openings = self._controls.openings
        self._open: int | None = None  # Position of the opening token whose end has not come yet.
        self.tokens: list[int] = []
        self.visible: list[int] = []
        self.calls: list[Call] = []
        self.thoughts: list[Thought] = []

    @property
    def settled(self) -> int:
        """How many of the tokens are told apart; those after them are held back."""
        return len(self.tokens) if self._open is None else self._open

    def add(self, tokens: Sequence[int], last: bool = False) -> None:
        """Add tokens.

        Args:
            tokens: new ids.
            last: whether the turn ends with them; then nothing is held back.
        """
        if self._open is None and self._wire.isdisjoint(tokens):
            self.visible.extend(range(len(self.tokens), len(self.tokens) + len(tokens)))
            self.tokens.extend(tokens)
            return
        for token in tokens:
            self._add(token)
        if last and self._open is not None:
            self._leave(self._open, len(self.tokens), whole=False)

    def peek(self, tokens: Sequence[int]) -> list[int]:
        """Those of ``tokens`` that would be visible if they came next; nothing is added."""
        if self._open is None and self._wire.isdisjoint(tokens):
            return list(tokens)
        # What is held back, followed by them, reads the same as a turn of its own.
        ahead = Turn(self._tokenizer, self._controls)
        held = self.tokens[self.settled :]
        ahead.add(held + list(tokens))
        return [ahead.tokens[position] for position in ahead.visible if position >= len(held)]

    def _add(self, token: int) -> None:
        position = len(self.tokens)
        self.tokens.append(token)
        if self._open is None:
            if token in self._openings:
                self._open = position
            elif token not in self._wire:
                self.visible.append(position)
        elif self.tokens[self._open] == self._controls.channel_open:
            if token == self._controls.channel_close:
                self._leave(self._open, position + 1, whole=True)
        elif token == self._controls.call_close:
            self._leave(self._open, position + 1, whole=True)
        elif token in self._openings:
            self._leave(self._open, position, whole=False)
            self._open = position

    def _leave(self, start: int, end: int, whole: bool) -> None:
        """Tell what ``tokens[start:end]`` is; ``whole``: a closing token is its last."""
        self._open = None
        inside = self.tokens[start + 1 : end - 1 if whole else end]
        if self.tokens[start] == self._controls.channel_open:
            text = self._thought(inside)
            if text:
                self.thoughts.append(Thought(text, end, end - start))
            return
        call = self._call(inside) if whole else None
        if call is not None:
            self.calls.append(Call(*call, end))
        else:
            self.visible.extend(i for i in range(start, end) if self.tokens[i] not in self._wire)

    def _thought(self, inside: Sequence[int]) -> str:
        text = self._text([token for token in inside if token not in self._wire])
        header, _, rest = text.partition("\n")
        return (rest if header.strip() == _HEADER else text).strip()

    def _call(self, inside: Sequence[int]) -> tuple[str, dict[str, Any]] | None:
        parts: list[list[int]] = [[]]
        for token in inside:
            if token == self._controls.quote:
                parts.append([])
            elif token in self._controls.special:
                return None  # Left out of the text, it would pass unseen.
            else:
                parts[-1].append(token)
        try:
            return parse_call([self._text(part) for part in parts])
        except ValueError:
            return None

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
