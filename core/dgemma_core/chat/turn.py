"""An assistant turn's tokens, classified as visible text, reasoning and tool calls.

Gemma 4 marks reasoning and calls with control tokens. Reasoning stands between ``<|channel>`` and ``<channel|>``, after
a header line ``thought``. A call reads ``<|tool_call>call:name{key:value,...}<tool_call|>`` with strings between two
``<|"|>``. Only the control tokens themselves count; the same characters spelled in ordinary tokens are text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dgemma_core.chat.call_parser import parse_call
from dgemma_core.chat.control_tokens import ControlTokens

_HEADER = "thought"


@dataclass(frozen=True)
class Call:
    """A well-formed tool call.

    Attributes:
        name: the tool's name.
        arguments: JSON values.
        end: position in the turn after the call's last token.
    """

    name: str
    arguments: dict[str, Any]
    end: int


@dataclass(frozen=True)
class Thought:
    """A block of reasoning that is not empty.

    Attributes:
        text: without its header, stripped of blanks.
        end: position in the turn after the block's last token.
        tokens: how many tokens the block has, its header and control tokens included.
    """

    text: str
    end: int
    tokens: int


class Turn:
    """One assistant turn, classified as its tokens arrive.

    A classification is final: the lists only grow. Reasoning and calls are held back until they close. A call is
    visible text if it is malformed, or if another opening token or the turn's end cuts it off. Reasoning cut off by the
    turn's end stays reasoning. Everything inside reasoning, calls included, is reasoning.

    Args:
        tokenizer: the checkpoint's tokenizer.
        controls: its control tokens, if they were looked up already.

    Attributes:
        tokens: all ids so far.
        visible: positions in ``tokens`` of the visible text, ascending. Control tokens of reasoning and calls are never
            among them.
        calls: finished calls.
        thoughts: finished blocks of reasoning.
    """

    def __init__(self, tokenizer: Any, controls: ControlTokens | None = None) -> None:
        self._tokenizer = tokenizer
        self._controls = controls or ControlTokens.of(tokenizer)
        self._structure = self._controls.present
        self._openings = self._controls.openings
        self._open: int | None = None  # position of an opening token that has not been closed
        self.tokens: list[int] = []
        self.visible: list[int] = []
        self.calls: list[Call] = []
        self.thoughts: list[Thought] = []

    @property
    def special(self) -> frozenset[int]:
        """The tokenizer's special tokens, which are no text even at a visible position."""
        return self._controls.special

    @property
    def classified(self) -> int:
        """How many tokens are classified; those after them are held back."""
        return len(self.tokens) if self._open is None else self._open

    def add(self, tokens: Sequence[int], last: bool = False) -> None:
        """Add tokens.

        Args:
            tokens: new ids.
            last: whether the turn ends with them; then nothing is held back.
        """
        if self._open is None and self._structure.isdisjoint(tokens):
            self.visible.extend(range(len(self.tokens), len(self.tokens) + len(tokens)))
            self.tokens.extend(tokens)
            return
        for token in tokens:
            self._add(token)
        if last and self._open is not None:
            self._leave(self._open, len(self.tokens), whole=False)

    def peek(self, tokens: Sequence[int]) -> list[int]:
        """The tokens among ``tokens`` that would be visible if they came next; nothing is added."""
        if self._open is None and self._structure.isdisjoint(tokens):
            return list(tokens)
        # The held tokens begin with an opening token, so a new turn of them and `tokens` is classified in the same way.
        ahead = Turn(self._tokenizer, self._controls)
        held = self.tokens[self.classified :]
        ahead.add(held + list(tokens))
        return [ahead.tokens[position] for position in ahead.visible if position >= len(held)]

    def _add(self, token: int) -> None:
        position = len(self.tokens)
        self.tokens.append(token)
        if self._open is None:
            if token in self._openings:
                self._open = position
            elif token not in self._structure:
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
        """Classify ``tokens[start:end]``, which begin with an opening token; if ``whole``, a closing token is last."""
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
            self.visible.extend(i for i in range(start, end) if self.tokens[i] not in self._structure)

    def _thought(self, inside: Sequence[int]) -> str:
        text = self._text([token for token in inside if token not in self._structure])
        header, _, rest = text.partition("\n")
        return (rest if header.strip() == _HEADER else text).strip()

    def _call(self, inside: Sequence[int]) -> tuple[str, dict[str, Any]] | None:
        parts: list[list[int]] = [[]]
        for token in inside:
            if token == self._controls.quote:
                parts.append([])
            elif token in self._controls.special:
                return None  # Decoding would leave it out, and the call would seem well-formed.
            else:
                parts[-1].append(token)
        try:
            return parse_call([self._text(part) for part in parts])
        except ValueError:
            return None

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
