"""The one thread that owns the backend. It empties the inbox and runs the loop, step by step."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import torch

from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.patience import result_of
from dgemma_core.api.usage import EngineStats
from dgemma_core.engine.counters import Counters
from dgemma_core.engine.inbox import Inbox
from dgemma_core.engine.loop import Loaded, Loop
from dgemma_core.engine.sequence import Sequence
from dgemma_core.errors import (
    DGemmaError,
    EngineClosedError,
    EngineDeadError,
    QueueFullError,
    RequestTimeoutError,
)

logger = logging.getLogger(__name__)


class Worker:
    """A worker thread and its queue. Started on first use.

    Args:
        load: loads the weights; called once, on the worker thread.
        max_queue: requests that may wait.
        name: of the thread.

    Attributes:
        ready: resolves when the weights are loaded.
    """

    def __init__(self, load: Callable[[], Loaded], max_queue: int, name: str) -> None:
        self.ready: Future[None] = Future()
        self.ready.set_running_or_notify_cancel()
        self._load = load
        self._name = name
        self._inbox = Inbox(max_queue, self._check_usable, self._scheduled)
        self._counters = Counters(self._inbox.lock)
        self._loop: Loop | None = None
        self._closing = False
        self._ended: BaseException | None = None
        self._thread: threading.Thread | None = None

    # Any thread.

    @property
    def ended(self) -> bool:
        """Whether the thread has ended, for any reason."""
        return self._ended is not None

    def start(self) -> None:
        """Start the thread if it is not running yet."""
        with self._inbox.lock:
            self._check_usable()
            if self._thread is None:
                thread = threading.Thread(target=self._main, name=self._name, daemon=True)
                thread.start()  # If this fails, the next request tries again.
                self._thread = thread

    def submit(self, *sequences: Sequence, wait: bool = False) -> None:
        """Queue all sequences before the next step, or none.

        Args:
            sequences: at least one.
            wait: if the queue is full, block until there is room.

        Raises:
            QueueFullError: the queue is full, and ``wait`` is false.
            EngineClosedError, EngineDeadError, CheckpointError: the worker takes no requests.
        """
        self.start()
        with self._inbox.lock:
            try:
                self._inbox.put(sequences, wait)
                self._counters.add(submitted=len(sequences))
            except KeyboardInterrupt:
                for sequence in sequences:  # They may be in the queue already.
                    sequence.handle.cancel()
                raise

    async def asubmit(self, *sequences: Sequence, wait: bool = False) -> None:
        """:meth:`submit` on an event loop. Waiting for room blocks neither the loop nor a thread."""
        while True:
            with self._inbox.lock:
                try:
                    return self.submit(*sequences)
                except QueueFullError:
                    if not wait or len(sequences) > self._inbox.max_queue:
                        raise
                    room = self._inbox.next_room()
            try:
                await asyncio.wrap_future(room)
            except BaseException:
                self._inbox.made_room()  # Somebody else may have it.
                raise
            for sequence in sequences:
                sequence.costs.restart_clock()

    def cancel(self, handle: RequestHandle) -> None:
        """Drop a request before the next step."""
        self._inbox.cancel(handle)

    def clear_prefix_cache(self) -> int:
        """Have the worker drop all cached prefixes before its next step. Returns the bytes freed."""
        with self._inbox.lock:
            if self._thread is None or self._ended is not None:
                return 0
            done = self._inbox.clear_prefixes()
        return result_of(done)

    def stats(self) -> EngineStats:
        """A snapshot of the counters."""
        with self._inbox.lock:
            loop = self._loop
            if loop is None:
                return self._counters.snapshot(waiting=self._inbox.waiting)
            running = list(loop.scheduler.running)
            return self._counters.snapshot(
                waiting=self._inbox.waiting,
                running=len(running),
                kv_bytes=sum(loop.backend.slot_bytes(s.capacity) for s in running if s.slot is not None),
                prefix_cache_bytes=loop.prefixes.nbytes,
            )

    def close(self, timeout: float | None = None) -> None:
        """Stop after the current step. Open requests end with ``EngineClosedError``.

        Args:
            timeout: seconds to wait for the thread; None waits until it has ended.
        """
        with self._inbox.lock:
            self._closing = True
            self._inbox.wake()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def after_fork(self) -> None:
        """In a forked child: the thread exists in the parent only, so a worker that was started has ended here."""
        self._inbox.renew_locks()
        self._counters.lock = self._inbox.lock
        if self._thread is None:
            return
        self._ended = EngineDeadError(
            "the process was forked after this engine had started, and its thread is in the parent only: make a new "
            "engine here, or start processes with the spawn method"
        )
        for handle in self._inbox.abandon():
            handle.after_fork(self._ended)
        self._loop = None
        if not self.ready.done():
            self.ready = Future()
            self.ready.set_exception(self._ended)

    def _scheduled(self) -> int:
        return len(self._loop.scheduler.waiting) if self._loop else 0

    def _check_usable(self) -> None:
        if self._ended is not None:
            raise _as_ending(self._ended)
        if self._closing:
            raise EngineClosedError("the engine is closed; make a new one")

    # The worker thread.

    def _main(self) -> None:
        with self._inbox.lock:
            # If Ctrl-C interrupted start(), it has forgotten this thread, and a second one may have been started.
            if self._thread not in (None, threading.current_thread()):
                return
            self._thread = threading.current_thread()
        try:
            with torch.inference_mode():
                with self._inbox.lock:
                    self._check_usable()  # If it is closed already, nothing needs to be loaded.
                loaded = self._load()
                self._loop = Loop(loaded, self._counters, self._close_handle)
                self._counters.add(weight_loads=1, load_s=loaded.load_s)
                self._restart_clocks()
                self.ready.set_result(None)
                while self._take_in(self._loop):
                    self._loop.admit()
                    self._inbox.made_room()
                    self._loop.step()
            self._end(EngineClosedError("the engine was closed"))
        except BaseException as error:
            if not isinstance(error, DGemmaError):
                logger.exception("the engine's worker thread ended")
            self._end(error)

    def _restart_clocks(self) -> None:
        """Count the timeouts of open requests from now on, because loading does not count."""
        with self._inbox.lock:
            for sequence in self._inbox.open.values():
                sequence.costs.restart_clock()

    def _take_in(self, loop: Loop) -> bool:
        """Take in new requests, cancellations and timeouts. Waits while there is nothing to do.

        Returns:
            Whether the loop goes on.
        """
        self._inbox.wait(lambda: self._closing or bool(loop.scheduler))
        with self._inbox.lock:  # So that a request is always in one of the two queues.
            new, cancelled, clearing = self._inbox.take()
            for sequence in new:
                loop.scheduler.add(sequence)
        held = loop.prefixes.nbytes
        try:
            if clearing:
                loop.prefixes.clear()
        finally:  # Resolved even after a failure, so that no caller waits for ever.
            freed = held - loop.prefixes.nbytes
            for done in clearing:
                done.set_result(freed)
                freed = 0
        if self._closing:
            return False
        for sequence in cancelled:
            loop.finish(sequence, "cancelled")
        # Checked after the cancelled ones have left, so that none ends twice. Sequences in the inbox are not checked,
        # because they would still be taken in after their end.
        now = time.monotonic()
        for sequence in loop.scheduler.sequences():
            if sequence.costs.deadline is not None and sequence.costs.deadline <= now:
                loop.fail(sequence, RequestTimeoutError(sequence.costs.timeout_text()))
        return True

    def _close_handle(self, sequence: Sequence) -> None:
        # Called after the handle has resolved. A fork before that still finds the handle in the inbox and ends it.
        self._inbox.close(sequence.handle)

    def _end(self, error: BaseException) -> None:
        with self._inbox.lock:
            self._ended = error
            left = list(self._inbox.open.values())
            _, _, clearing = self._inbox.take()
            # Slots are not closed one by one, because that might fail. They go with the loop and its backend.
            loop, self._loop = self._loop, None
            self._counters.add(failed=len(left))
            self._inbox.wake()
        for done in clearing:
            done.set_result(loop.prefixes.nbytes if loop else 0)
        if not self.ready.done():
            self.ready.set_exception(error)
        for sequence in left:
            sequence.handle.fail(_as_ending(error))
            self._close_handle(sequence)


def _as_ending(error: BaseException) -> DGemmaError:
    """The error that ended the worker, as callers see it."""
    if isinstance(error, DGemmaError):
        return error
    dead = EngineDeadError(f"the engine's worker thread ended: {error!r}")
    dead.__cause__ = error
    return dead
