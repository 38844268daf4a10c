"""The requests of one call: how many are open at a time, and who waits when the engine's queue is full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from dgemma_core.errors import QueueFullError

T = TypeVar("T")


class Turns:
    """The turns of one call's requests. Belongs to one event loop.

    Args:
        limit: requests that are open at a time; None means all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._free = None if limit is None else asyncio.Semaphore(limit)
        self._open = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn, from before a request is queued until it has ended."""
        if self._free is not None:
            await self._free.acquire()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if self._free is not None:
                self._free.release()

    async def queue(self, submit: Callable[[bool], Awaitable[T]]) -> T:
        """Queue the request of a turn.

        A request waits for room if the call has more of them. If it is the only one, it is refused.

        Args:
            submit: queues the request; takes whether to wait for room.

        Raises:
            QueueFullError: the queue is full, and the call has no other open requests.
        """
        try:
            return await submit(self._open > 1)
        except QueueFullError:
            if self._open == 1:
                raise
            return await submit(True)
