"""The worker's inbox: new requests, cancellations and calls to clear the prefix cache, from any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.patience import patience
from dgemma_core.engine.sequence import Sequence
from dgemma_core.errors import QueueFullError


class Inbox:
    """The queue before the worker. Everything in it changes under one lock.

    Args:
        max_queue: requests that may wait.
        check_usable: raises if the engine takes no requests; called with the lock held.
        scheduled: number of sequences that wait in the scheduler; called with the lock held.

    Attributes:
        lock: of the inbox, and of other state that must change together with it.
        open: requests whose handles have not resolved yet, by handle.
    """

    def __init__(self, max_queue: int, check_usable: Callable[[], None], scheduled: Callable[[], int]) -> None:
        self.max_queue = max_queue
        self.open: dict[RequestHandle, Sequence] = {}
        self._check_usable = check_usable
        self._scheduled = scheduled
        self._new: deque[Sequence] = deque()
        self._cancels: deque[RequestHandle] = deque()
        self._clearing: list[Future[int]] = []
        self._arrivals: deque[Future[None]] = deque()
        self.renew_locks()

    def renew_locks(self) -> None:
        """In a forked child: make new locks. The old ones may be held by a thread that exists in the parent only."""
        self.lock = threading.RLock()
        self._something = threading.Condition(self.lock)  # Wakes the worker.
        self._room = threading.Condition(self.lock)  # Wakes callers that wait for room.

    @property
    def waiting(self) -> int:
        """Requests that wait to be admitted."""
        return len(self._new) + self._scheduled()

    def put(self, sequences: tuple[Sequence, ...], wait: bool) -> None:
        """Queue all sequences before the next step, or none.

        Args:
            sequences: at least one.
            wait: if the queue is full, block until there is room. The timeouts count from then on.

        Raises:
            QueueFullError: no room.
        """
        with self.lock:
            self._check_usable()
            waits = wait and len(sequences) <= self.max_queue
            while self.waiting + len(sequences) > self.max_queue:
                if not waits:
                    raise QueueFullError(
                        f"max_queue={self.max_queue}: {self.waiting} requests are waiting, there is no room for "
                        f"{len(sequences)} more; wait for some of them, or raise LoadSpec.max_queue"
                    )
                self._room.wait(patience())
                self._check_usable()
                for sequence in sequences:
                    sequence.costs.restart_clock()
            self.open |= {sequence.handle: sequence for sequence in sequences}
            self._new.extend(sequences)
            self._something.notify()

    def cancel(self, handle: RequestHandle) -> None:
        """Ask the worker to drop a request before the next step."""
        with self.lock:
            self._cancels.append(handle)
            self._something.notify()

    def clear_prefixes(self) -> Future[int]:
        """Ask the worker to drop all cached prefixes before the next step. Resolves to the bytes freed."""
        done: Future[int] = Future()
        with self.lock:
            self._clearing.append(done)
            self._something.notify()
        return done

    def wake(self) -> None:
        """Wake the worker and everybody who waits for room."""
        with self.lock:
            self._something.notify_all()
            self._room.notify_all()
            self._call_in(len(self._arrivals))

    def wait(self, busy: Callable[[], bool]) -> None:
        """Block the worker until something arrives, or ``busy`` becomes true."""
        with self.lock:
            while not (self._new or self._cancels or self._clearing or busy()):
                self._something.wait()

    def take(self) -> tuple[list[Sequence], list[Sequence], list[Future[int]]]:
        """Empty the inbox.

        Returns:
            New sequences, cancelled sequences that are still open, and the futures of :meth:`clear_prefixes`.
        """
        with self.lock:
            new, self._new = list(self._new), deque()
            cancelled = [self.open[handle] for handle in self._cancels if handle in self.open]
            self._cancels.clear()
            clearing, self._clearing = self._clearing, []
            return new, cancelled, clearing

    def next_room(self) -> Future[None]:
        """Resolves when there may be room, for callers on an event loop. They wait in line."""
        room: Future[None] = Future()
        # So that a cancelled task does not cancel it, and the worker alone ends it.
        room.set_running_or_notify_cancel()
        with self.lock:
            self._arrivals.append(room)
        return room

    def made_room(self) -> None:
        """Wake callers that wait for room, after sequences have left the queue, or a caller has left the line."""
        with self.lock:
            self._room.notify_all()
            self._call_in(self.max_queue - self.waiting)

    def close(self, handle: RequestHandle) -> None:
        """Forget a handle that has resolved."""
        with self.lock:
            self.open.pop(handle, None)
            self.made_room()

    def abandon(self) -> list[RequestHandle]:
        """In a forked child: forget everything; returns the handles that were open."""
        handles = list(self.open)
        self.open, self._new, self._cancels, self._clearing = {}, deque(), deque(), []
        self._arrivals.clear()
        return handles

    def _call_in(self, count: int) -> None:
        for _ in range(min(count, len(self._arrivals))):
            self._arrivals.popleft().set_result(None)
