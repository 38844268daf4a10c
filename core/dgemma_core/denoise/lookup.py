"""Drafts from what was written before: prompt lookup decoding.

The text often repeats itself: an answer quotes its documents, a list its items. Where the last tokens have occurred
before, the tokens that followed there are a draft. The idea is from
https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LONGEST = 4  # Tokens of the text's end that are compared.


class Lookup:
    """The tokens of prompt and answer so far, searchable for their own end.

    Args:
        capacity: tokens of prompt and answer at most.
    """

    def __init__(self, capacity: int) -> None:
        self._tokens: NDArray[np.int64] = np.empty(capacity, dtype=np.int64)
        self._count = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens."""
        self._tokens[self._count : self._count + len(tokens)] = tokens
        self._count += len(tokens)

    def draft(self, length: int) -> list[int]:
        """The tokens that followed the last occurrence of the text's end, at most ``length``.

        The longest end of up to four tokens that has occurred before is taken. Empty if even the last token has not.
        """
        count, tokens = self._count, self._tokens
        if count < 2 or length < 1:
            return []
        places = np.flatnonzero(tokens[: count - 1] == tokens[count - 1])
        for back in range(1, min(_LONGEST, count - 1)):
            longer = places[places >= back]
            longer = longer[tokens[longer - back] == tokens[count - 1 - back]]
            if not len(longer):
                break
            places = longer
        if not len(places):
            return []
        after = int(places[-1]) + 1
        return list(map(int, tokens[after : min(after + length, count)]))
