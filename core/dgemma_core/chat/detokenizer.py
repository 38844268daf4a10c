"""Answer tokens to text, block by block, with stop strings that may span blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\ufffd"


class Detokenizer:
    """Incremental text of one answer.

    Text is confirmed as soon as nothing that follows can change it: a trailing incomplete character and a suffix that
    may turn out to begin a stop string are held back, and so are their tokens.

    Args:
        tokenizer: the checkpoint's tokenizer.
        stop: strings that end the answer.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._tokens: list[int] = []
        self._confirmed = 0
        self.text = ""
        self.kept: list[int] = []

    def add(self, tokens: Sequence[int], last: bool) -> tuple[str, tuple[int, ...], bool]:
        """Add the tokens of a block.

        Args:
            tokens: new token ids.
            last: whether the answer ends with them; then nothing is held back.

        Returns:
            Newly confirmed text, its token ids, and whether a stop string was reached.
        """
        self._tokens.extend(tokens)
        text = self.decode(self._tokens)
        if not last:
            text = text.rstrip(_INCOMPLETE)
        cut = self._first_stop(text)
        stopped = cut < len(text)
        if stopped:
            text = text[:cut]
        elif not last:
            text = text[: len(text) - self._held_back(text)]
        count = len(self._tokens) if last and not stopped else self._tokens_within(len(text), stopped)
        new_text, new_tokens = text[len(self.text) :], tuple(self._tokens[self._confirmed : count])
        self.text, self._confirmed = text, count
        self.kept.extend(new_tokens)
        return new_text, new_tokens, stopped

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, control tokens left out."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _first_stop(self, text: str) -> int:
        """Start of the first stop string in ``text``, or its length. Confirmed text cannot contain one."""
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
        """How many tokens make up the first ``length`` characters (the one that crosses it is kept at a stop)."""
        low, high = self._confirmed, len(self._tokens)
        while low < high:  # The largest count whose text fits.
            middle = (low + high + 1) // 2
            if len(self.decode(self._tokens[:middle]).rstrip(_INCOMPLETE)) <= length:
                low = middle
            else:
                high = middle - 1
        if stopped and low < len(self._tokens) and len(self.decode(self._tokens[:low])) < length:
            low += 1
        return low
