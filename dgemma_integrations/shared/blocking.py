"""Runs coroutines for callers that block, on the event loop of a thread of its own. Ctrl-C ends the wait at once."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import aclosing, suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from dgemma_core.api.patience import patience

T = TypeVar("T")

# After an interrupt: most seconds to wait until the cancelled work has ended.
_PATIENCE = 1.0


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from any thread, also from one whose event loop is running.

    LlamaIndex's own ``asyncio_run`` takes every ``RuntimeError`` for a problem with event loops. It replaces the error
    with a hint about nested loops, which hides the real cause.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. The work is cancelled.
        BaseException: whatever the work raises.
    """

    async def once() -> AsyncGenerator[T]:
        yield await work

    try:
        (result,) = iterate_blocking(once())
        return result
    finally:
        if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
            work.close()  # Interrupted before it began. Python would warn that nobody has awaited it.


def iterate_blocking(work: AsyncGenerator[T]) -> Generator[T]:
    """The items of an async generator. The generator does not wait for the caller.

    If the caller leaves early, for any reason, the work is cancelled.

    Raises:
        BaseException: whatever the work raises.
    """
    worker = _LoopThread(work)
    try:
        worker.start()
        while True:
            try:
                item, end = worker.items.get(timeout=patience())
            except Empty:
                continue
            if end is None:
                yield item
            elif isinstance(end, StopAsyncIteration):
                return
            else:
                raise end
    finally:
        worker.cancel()


class _LoopThread(threading.Thread, Generic[T]):
    """Puts the items of an async generator into a queue, then its end: an error, or ``StopAsyncIteration``."""

    def __init__(self, work: AsyncGenerator[T]) -> None:
        super().__init__(name="dgemma-blocking", daemon=True)
        self.items: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._work = work
        self._context = contextvars.copy_context()
        self._changing = threading.Lock()
        self._cancelled = False
        self._task: asyncio.Task[None] | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        end: BaseException = StopAsyncIteration()
        # With a factory, the runner does not change the thread's current event loop.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            try:
                runner.run(self._collect(), context=self._context)
            except BaseException as error:
                end = error
            self._ended.set()
            self.items.put((None, end))

    def cancel(self) -> None:
        """Cancel the work if it has not ended, and wait a moment for its end."""
        with self._changing:
            self._cancelled = True
            task = self._task
        if task is not None and not task.done():
            with suppress(RuntimeError):  # It has ended meanwhile, and its loop is closed.
                task.get_loop().call_soon_threadsafe(task.cancel)
        if self.is_alive():
            self._ended.wait(_PATIENCE)

    async def _collect(self) -> None:
        with self._changing:
            self._task = asyncio.current_task()
            if self._cancelled:
                return
        async with aclosing(self._work) as work:
            async for item in work:
                self.items.put((item, None))
