"""The prefix cache: keeps keys and values of past requests, so that later requests need not compute them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from dgemma_core.execution.backend import Backend, Slot


class PrefixCache:
    """Keys and values of past requests' prefixes. The least recently used entry is dropped first.

    A request reuses the longest prefix of token ids that it shares with an entry, to the token. So a shared system
    prompt, conversation or document is computed once.

    Reuse is exact, because the encoder is causal. An image's tokens may see each other. They are compared by the
    image's identity (see ``Sequence.identities``), so they are reused only if the whole image is the same.

    Args:
        backend: holds the keys and values.
        max_bytes: budget; 0 turns the cache off.

    Attributes:
        nbytes: bytes held now.
    """

    def __init__(self, backend: Backend, max_bytes: int) -> None:
        self._backend = backend
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, ...], Slot] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, tokens: Sequence[int], into: Slot) -> int:
        """Copy the longest known prefix of a prompt into a slot.

        The last token is never reused, so that every request has at least one position to compute.

        Args:
            tokens: the prompt, as ``Sequence.identities``.
            into: the new slot of the request.

        Returns:
            Length of the prefix in tokens; 0 if none is known.
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
        """Keep a copy of the first ``len(tokens)`` positions of a slot, if the budget allows it.

        Args:
            tokens: the tokens of these positions, as ``Sequence.identities``.
            slot: the slot of the request; their keys and values are final.

        Raises:
            Exception: memory ran out; ``errors.is_out_of_memory`` recognises it. Nothing is kept then.
        """
        key = tuple(tokens)
        if not key or key in self._entries:
            return
        size = self._backend.slot_bytes(len(key))
        if size > self._max_bytes:
            return
        for known in [k for k in self._entries if len(k) < len(key) and key[: len(k)] == k]:
            self._drop(known)  # The longer entry serves every request that the shorter one does.
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
    # Tuple slices compare in C, so a binary search needs no Python loop over the tokens.
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
