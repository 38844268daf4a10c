"""Splits a text that does not fit the context window into pieces that do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from dgemma_core.api.protocol import Engine

LongText = Literal["truncate", "split", "error"]
"""What to do with a text that does not fit the context window together with its questions."""
LONG_TEXT: tuple[str, ...] = get_args(LongText)

# Characters to tokenize per token of room. With a limit, the time to split a text is proportional to its length.
_LONGEST_TOKEN = 16


def split_text(engine: Engine, text: str, room: int) -> Iterator[str]:
    """The text in pieces of at most ``room`` tokens, cut between words if possible."""
    begin, length = 0, len(text)
    while begin < length:
        if text[begin].isspace():
            begin += 1
            continue
        end = begin + _prefix_length(engine, text[begin : begin + room * _LONGEST_TOKEN], room)
        if end < length and not text[end].isspace():
            end = next((at for at in range(end, begin, -1) if text[at - 1].isspace()), end)
        yield text[begin:end].strip()
        begin = end


def _prefix_length(engine: Engine, text: str, room: int) -> int:
    """Length, in characters, of a prefix of at most ``room`` tokens. It is found by binary search and is at least 1."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(engine.encode_text(text[:middle])) <= room:
            low = middle
        else:
            high = middle - 1
    return low
