"""Prefixes of past requests whose keys and values are kept, so that later requests need not compute them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from dgemma_core.execution.backend import Backend, Slot


class PrefixCache:
    """Causal prefixes of past requests, reused by later ones; least recently used first out.

    Any common prefix of token ids counts, at token granularity, so a shared system prompt, a conversation so far or a
    shared RAG context is computed once. Exact: the encoder is causal, and an image's tokens, which may see each other,
    are numbered by what it shows, so that they are shared together or not at all.

    Args:
        backend: holds the keys and values.
        max_bytes: budget; 0 turns the cache off.
    """

    def __init__(self, backend: Backend, max_bytes: int) -> None:
        self._backend = backend
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, ...], Slot] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, tokens: Sequence[int], into: Slot) -> int:
        """Copy the longest known prefix of ``tokens`` into a slot; returns its length in tokens.

        The last prompt token is never taken, so that every request has at least one position to compute.
        """
        best: tuple[int, ...] | None = None
        length = 0
        for known in self._entries:
            common = common_prefix(known, tokens)
            if common > length:
                best, length = known, common
        length = min(length, len(tokens) - 1)
        if best is None or length <= 0:
            return 0
        self._entries.move_to_end(best)
        self._backend.fork_prefix(self._entries[best], into, length)
        return length

    def put(self, tokens: Sequence[int], slot: Slot) -> None:
        """Remember the beginning of a slot whose token ids are ``tokens``, where the budget allows it."""
        key = tuple(tokens)
        if not key or key in self._entries:
            return
        size = self._backend.slot_bytes(len(key))
        if size > self._max_bytes:
            return
        for known in [k for k in self._entries if len(k) < len(key) and key[: len(k)] == k]:
            self._drop(known)  # The longer entry serves every request the shorter one could.
        while self.nbytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        kept = self._backend.open(len(key))
        try:
            self._backend.fork_prefix(slot, kept, len(key))
        except Exception:
            self._backend.close(kept)
            raise
        self._entries[key] = kept
        self.nbytes += size

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._entries):
            self._drop(key)

    def _drop(self, key: tuple[int, ...]) -> None:
        self._backend.close(self._entries.pop(key))
        self.nbytes -= self._backend.slot_bytes(len(key))


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix of two token sequences."""
    limit = min(len(a), len(b))
    low = 0
    # Tuple slices compare in C; halving finds the first difference without a Python loop over tokens.
    high = limit
    if tuple(a[:limit]) == tuple(b[:limit]):
        return limit
    while low < high:
        middle = (low + high + 1) // 2
        if tuple(a[low:middle]) == tuple(b[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
