"""The control tokens that structure an assistant turn of Gemma 4, and their ids in one tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

QUOTE = '<|"|>'
CALL_OPEN, CALL_CLOSE = "<|tool_call>", "<tool_call|>"
CHANNEL_OPEN, CHANNEL_CLOSE = "<|channel>", "<channel|>"

# Gemma 4 spells all its control tokens so. Some tokenizers do not mark all of them as special.
_SHAPE = re.compile(r"<\|.+>|<.+\|>", re.DOTALL)
_OFF = -1  # an id that no token has


@dataclass(frozen=True)
class ControlTokens:
    """Ids of a tokenizer's control tokens; -1 for a token that it lacks.

    A pair is -1 as a whole if the tokenizer lacks one of the two, and so is ``quote`` without the pair around calls.

    Attributes:
        channel_open, channel_close: around reasoning.
        call_open, call_close: around a tool call.
        quote: before and after a string in a tool call.
        special: ids of all the tokenizer's special tokens.
    """

    channel_open: int
    channel_close: int
    call_open: int
    call_close: int
    quote: int
    special: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> ControlTokens:
        """Look the tokens up by their spelling."""
        channel = _pair(tokenizer, CHANNEL_OPEN, CHANNEL_CLOSE)
        call = _pair(tokenizer, CALL_OPEN, CALL_CLOSE)
        quote = _id(tokenizer, QUOTE) if call[0] != _OFF else _OFF
        return cls(*channel, *call, quote, frozenset(tokenizer.all_special_ids))

    @property
    def present(self) -> frozenset[int]:
        """The tokens of a turn's structure that the tokenizer has."""
        return frozenset((*self.openings, self.channel_close, self.call_close, self.quote)) - {_OFF}

    @property
    def calls(self) -> tuple[int, ...]:
        """The tokens that only calls have; empty if the tokenizer lacks them."""
        return tuple(token for token in (self.call_open, self.call_close, self.quote) if token != _OFF)

    @property
    def openings(self) -> frozenset[int]:
        """The tokens that open reasoning or a call."""
        return frozenset((self.channel_open, self.call_open)) - {_OFF}


def control_spellings(tokenizer: Any) -> dict[int, str]:
    """The tokens that only a template may write, by id: special tokens, and others that are spelled like Gemma 4's.

    Other added tokens are text. Published tokenizers have thousands of them: HTML tags, runs of blanks and line breaks.
    """
    special = set(tokenizer.all_special_ids)
    added: dict[int, Any] = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {
        token: known.content
        for token, known in added.items()
        if known.special or token in special or _SHAPE.fullmatch(known.content)
    }


def _id(tokenizer: Any, spelling: str) -> int:
    found = tokenizer.convert_tokens_to_ids(spelling)
    # For a spelling that is not a token, tokenizers return None or the id of their unknown token.
    if found is None or tokenizer.convert_ids_to_tokens(found) != spelling:
        return _OFF
    return int(found)


def _pair(tokenizer: Any, opening: str, closing: str) -> tuple[int, int]:
    ids = _id(tokenizer, opening), _id(tokenizer, closing)
    return (_OFF, _OFF) if _OFF in ids else ids
