"""What a draft wanted where the room left was too small for it, and whether the text lost some of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Shortfall:
    """Compares what the room refused with what the text got instead.

    A refusal alone costs nothing: the same characters may fit in fewer tokens.

    Args:
        bytes_of: the bytes of tokens.
    """

    def __init__(self, bytes_of: Callable[[Sequence[int]], bytes]) -> None:
        self._bytes_of = bytes_of
        # Refused texts, and what the text got from there on.
        self._refused: list[tuple[bytes, bytearray]] = []
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether the text, which ends here, lacks something that the room refused."""
        return self._lost or bool(self._refused)

    def refuse(self, tokens: Sequence[int]) -> None:
        """Remember tokens that the grammar allows here and the room does not."""
        if not self._lost:
            self._refused.append((self._bytes_of(tokens), bytearray()))

    def take(self, tokens: Sequence[int]) -> None:
        """Go on after ``tokens``, which the text got."""
        if not self._refused:
            return
        spelled = self._bytes_of(tokens)
        for _, got in self._refused:
            got += spelled
        self._lost = any(not (wanted.startswith(got) or got.startswith(wanted)) for wanted, got in self._refused)
        still = (pair for pair in self._refused if not pair[1].startswith(pair[0]))
        self._refused = [] if self._lost else list(still)
