"""Answer tokens to text, reasoning and tool calls, block by block, with stop strings that may span blocks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from dgemma_core.api.messages import ToolCall
from dgemma_core.chat.tool_names import ToolNames
from dgemma_core.chat.turn import Call, Turn

_INCOMPLETE = "\ufffd"


class Detokenizer:
    """Incremental text of one answer.

    Text is confirmed as soon as later tokens cannot change it. An incomplete character at the end is held back, and so
    is a suffix that may begin a stop string; their tokens are held back, too. Reasoning and well-formed tool calls are
    not text. Their tokens are held back until they close or the answer ends.

    Args:
        tokenizer: the checkpoint's tokenizer.
        stop: strings that end the answer; searched in the text only.
        names: of the tools; by default they are declared under their own.

    Attributes:
        text: confirmed text.
        kept: confirmed tokens, including control tokens and those of reasoning and tool calls.
        tool_calls: confirmed calls, each with a new id.
        reasoning: confirmed reasoning; its blocks are joined by line feeds.
        reasoning_tokens: how many of the kept tokens are reasoning.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), names: ToolNames | None = None) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._names = names or ToolNames()
        self._turn = Turn(tokenizer)
        self._visible: list[int] = []  # The tokens at the turn's visible positions.
        self._shown = 0  # How many of them are confirmed.
        self.text = ""
        self.kept: list[int] = []
        self.tool_calls: tuple[ToolCall, ...] = ()
        self.reasoning = ""
        self.reasoning_tokens = 0

    def add(self, tokens: Sequence[int], last: bool) -> tuple[str, tuple[int, ...], bool]:
        """Add the tokens of a block.

        Args:
            tokens: new token ids.
            last: whether the answer ends with them; then nothing is held back.

        Returns:
            Newly confirmed text, its token ids, and whether a stop string was reached.
        """
        turn = self._turn
        turn.add(tokens, last)
        self._visible.extend(turn.tokens[position] for position in turn.visible[len(self._visible) :])
        text = self._text(self._visible)
        if not last:
            text = text.rstrip(_INCOMPLETE)
        cut = self._first_stop(text)
        stopped = cut < len(text)
        if stopped:
            text = text[:cut]
        elif not last:
            text = text[: len(text) - self._held_back(text)]
        count = len(turn.tokens) if last and not stopped else self._tokens_within(len(text), stopped)
        new_text, new_tokens = text[len(self.text) :], tuple(turn.tokens[len(self.kept) : count])
        self.text = text
        self.kept.extend(new_tokens)
        self._confirm(count)
        return new_text, new_tokens, stopped

    def decode(self, tokens: Sequence[int]) -> str:
        """The visible text of tokens that may come next, without control tokens, reasoning and tool calls.

        Args:
            tokens: ids. Reasoning or a call that is open after the tokens added so far continues in them.
        """
        return self._text(self._turn.peek(tokens))

    def in_text(self, start: int) -> frozenset[int]:
        """Positions from ``start`` on of the confirmed tokens that make up the text."""
        turn = self._turn
        first, last = (bisect_left(turn.visible, position) for position in (start, len(self.kept)))
        return frozenset(place for place in turn.visible[first:last] if turn.tokens[place] not in turn.special)

    def spelled(self, token: int) -> str:
        """One token as text, also a control token. Bytes of an incomplete character become U+FFFD."""
        text: str = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _confirm(self, count: int) -> None:
        """Confirm the calls and the reasoning within the first ``count`` tokens."""
        calls = [call for call in self._turn.calls if call.end <= count]
        self.tool_calls += tuple(map(self._tool_call, calls[len(self.tool_calls) :]))
        thoughts = [thought for thought in self._turn.thoughts if thought.end <= count]
        self.reasoning = "\n".join(thought.text for thought in thoughts)
        self.reasoning_tokens = sum(thought.tokens for thought in thoughts)

    def _first_stop(self, text: str) -> int:
        """Start of the first stop string in ``text``, or the length of ``text`` if there is none."""
        # Confirmed text contains no stop string.
        hits = [text.find(stop, max(0, len(self.text) - len(stop) + 1)) for stop in self._stop]
        return min((hit for hit in hits if hit >= 0), default=len(text))

    def _held_back(self, text: str) -> int:
        """Length of the longest suffix of ``text`` that begins a stop string."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:size]):
                    longest = size
                    break
        return longest

    def _tokens_within(self, length: int, stopped: bool) -> int:
        """How many of the turn's tokens make up the first ``length`` characters of the text.

        At a stop, a token that crosses that length counts.
        """
        low, high = self._shown, len(self._visible)
        while low < high:  # The largest count whose text fits.
            middle = (low + high + 1) // 2
            if len(self._text(self._visible[:middle]).rstrip(_INCOMPLETE)) <= length:
                low = middle
            else:
                high = middle - 1
        self._shown = low
        if low == len(self._visible):
            return self._turn.classified
        crosses = stopped and len(self._text(self._visible[:low])) < length
        return self._turn.visible[low] + crosses

    def _tool_call(self, call: Call) -> ToolCall:
        return ToolCall(self._names.own(call.name), call.arguments, f"call_{uuid4().hex[:24]}")
