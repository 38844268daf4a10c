"""The caller's side of a request: its result, its events and a way to cancel it, for threads and event loops."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import cast

from dgemma_core.api.events import Event, FinishedEvent, Generation
from dgemma_core.api.patience import patience, result_of
from dgemma_core.api.plain_numbers import plain
from dgemma_core.errors import RequestTimeoutError


class RequestHandle:
    """A queued request. Await it or call :meth:`result` for the answer; iterate over it for the events.

    Any number of threads and event loops may use it at once. Every iterator starts from the first event, so a late
    reader misses nothing.

    Args:
        cancel: tells the engine to drop the request; never blocks.
    """

    def __init__(self, cancel: Callable[[RequestHandle], None]) -> None:
        self._cancel = cancel
        self._cancelled = False
        self._future: Future[Generation] = Future()
        # asyncio.wrap_future cancels a pending future; a running one it cannot, so the worker alone ends it.
        self._future.set_running_or_notify_cancel()
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._wakers: list[Callable[[], None]] = []

    def result(self, timeout: float | None = None) -> Generation:
        """Block until the request ends.

        Args:
            timeout: seconds to wait; the request itself runs on.

        Raises:
            RequestTimeoutError: not done in time.
            DGemmaError: the request failed.
        """
        try:
            return result_of(self._future, cast(float | None, plain(timeout)))
        except FutureTimeout as error:
            if self._future.done():
                raise  # The request's own error, which is a TimeoutError too.
            raise RequestTimeoutError(
                f"no result within {timeout} s; the request is still running: call result() again, or cancel()"
            ) from error

    def done(self) -> bool:
        """Whether the request has ended, with an answer or an error."""
        return self._future.done()

    def cancel(self) -> None:
        """Ask the engine to drop the request before its next step. Idempotent, any thread, never blocks.

        The request then ends with ``finish_reason="cancelled"`` and the text confirmed so far.
        """
        with self._changed:
            if self._cancelled or self._future.done():
                return
            self._cancelled = True
        self._cancel(self)

    def __await__(self) -> Generator[object, None, Generation]:
        return self._wait().__await__()

    async def _wait(self) -> Generation:
        try:
            return await asyncio.wrap_future(self._future)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def __iter__(self) -> Iterator[Event]:
        seen = 0
        while True:
            with self._changed:
                while len(self._events) == seen and not self._future.done():
                    self._changed.wait(patience())
                fresh = self._events[seen:]
            yield from fresh
            seen += len(fresh)
            if not fresh:
                self._future.result()  # Raises the error of a request that failed.
                return

    async def __aiter__(self) -> AsyncIterator[Event]:
        loop = asyncio.get_running_loop()
        fresh_events = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # The loop was closed: nobody is listening any more.
                loop.call_soon_threadsafe(fresh_events.set)

        with self._changed:
            self._wakers.append(wake)
        try:
            seen = 0
            while True:
                fresh_events.clear()
                with self._changed:
                    fresh, done = self._events[seen:], self._future.done()
                for event in fresh:
                    yield event
                seen += len(fresh)
                if not fresh:
                    if done:
                        self._future.result()
                        return
                    await fresh_events.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            with self._changed:
                self._wakers.remove(wake)

    def after_fork(self, error: BaseException) -> None:
        """In a forked child: end the request with ``error``. It goes on in the parent only."""
        # The old ones may be locked by a thread that exists in the parent only.
        self._changed, self._future = threading.Condition(), Future()
        self._future.set_exception(error)

    # Called by the worker thread only.

    def emit(self, event: Event) -> None:
        """Append an event and wake every reader."""
        with self._changed:
            self._events.append(event)
            self._wake()

    def finish(self, generation: Generation) -> None:
        """End the request with its answer."""
        with self._changed:
            if self._future.done():
                return
            self._events.append(FinishedEvent(generation))
            self._future.set_result(generation)
            self._wake()

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        with self._changed:
            if self._future.done():
                return
            self._future.set_exception(error)
            self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        for wake in self._wakers:
            wake()
