"""The one thread that owns the model: drains the queue, schedules a step, runs it, hands out what it gave."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import torch
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from dgemma_core.api.events import BlockEvent, DraftEvent, FinishReason, Generation
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.usage import EngineStats
from dgemma_core.engine.scheduler import Scheduler, Work
from dgemma_core.engine.sequence import Sequence
from dgemma_core.errors import (
    DGemmaError,
    EngineClosedError,
    EngineDeadError,
    OutOfMemoryError,
    QueueFullError,
    RequestTimeoutError,
    is_out_of_memory,
)
from dgemma_core.execution.eager import ModelRunner, Reading
from dgemma_core.execution.kv_cache import PrefixCache, SequenceCache

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What the worker needs once the weights are in."""

    runner: ModelRunner
    prefix_cache: PrefixCache
    max_batch_tokens: int
    max_running: int
    end_ids: frozenset[int]
    load_s: float


class Worker:
    """A worker thread and its queue. Started on first use.

    Args:
        load: brings in the weights; called once, on the worker thread.
        max_queue: requests that may wait.
        name: of the thread.
    """

    def __init__(self, load: Callable[[], Loaded], max_queue: int, name: str) -> None:
        self.ready: Future[None] = Future()
        self.ready.set_running_or_notify_cancel()
        self._load = load
        self._max_queue = max_queue
        self._name = name
        self._renew_locks()
        self._inbox: deque[Sequence] = deque()
        self._cancels: deque[RequestHandle] = deque()
        self._clearing: list[Future[int]] = []
        self._open: dict[RequestHandle, Sequence] = {}
        self._scheduler = Scheduler(1, 1)
        self._prefix_cache: PrefixCache | None = None
        self._closing = False
        self._ended: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._stats = EngineStats()

    # Any thread.

    def start(self) -> None:
        """Start the thread if it is not running yet."""
        with self._changed:
            self._check_usable()
            if self._thread is None:
                self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
                self._thread.start()

    def submit(self, *sequences: Sequence, wait: bool = False) -> None:
        """Queue sequences, all of them before the next step, or none.

        Args:
            sequences: at least one.
            wait: where the queue is full, block until there is room; their timeouts count from then on.

        Raises:
            QueueFullError, EngineClosedError, EngineDeadError, CheckpointError: nothing was queued.
        """
        self.start()
        with self._changed:
            self._check_usable()
            waits = wait and len(sequences) <= self._max_queue
            while (waiting := self._waiting()) + len(sequences) > self._max_queue:
                if not waits:
                    raise QueueFullError(
                        f"{len(sequences)} more beside {waiting} requests that are waiting "
                        f"(max_queue={self._max_queue}): wait for some of them, or raise LoadSpec.max_queue"
                    )
                self._room.wait()
                self._check_usable()
                for sequence in sequences:
                    sequence.restart_clock()
            self._open |= {sequence.handle: sequence for sequence in sequences}
            self._inbox.extend(sequences)
            self._stats = replace(self._stats, submitted=self._stats.submitted + len(sequences))
            self._changed.notify()

    def cancel(self, handle: RequestHandle) -> None:
        """Drop a request before the next step."""
        with self._changed:
            self._cancels.append(handle)
            self._changed.notify()

    def clear_prefix_cache(self) -> int:
        """Have the worker drop all cached prefixes before its next step; returns the bytes freed."""
        done: Future[int] = Future()
        with self._changed:
            if self._thread is None or self._ended is not None:
                return 0
            self._clearing.append(done)
            self._changed.notify()
        return done.result()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended, for whatever reason."""
        return self._ended is not None

    def stats(self) -> EngineStats:
        """A snapshot of the counters."""
        with self._changed:
            running = list(self._scheduler.running)
            return replace(
                self._stats,
                waiting=self._waiting(),
                running=len(running),
                kv_bytes=sum(s.cache.nbytes for s in running if s.cache is not None),
                prefix_cache_bytes=self._prefix_cache.nbytes if self._prefix_cache else 0,
            )

    def close(self, timeout: float | None = None) -> None:
        """Stop after the current step; open requests end with ``EngineClosedError``."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            self._room.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def after_fork(self) -> None:
        """In a forked child: the thread stayed in the parent, so a worker that was started has ended here."""
        self._renew_locks()  # Whoever held them did not come along.
        if self._thread is None:
            return
        self._ended = EngineDeadError(
            "the process was forked after this engine had started, and its thread is in the parent only: make a new "
            "engine here, or start processes with the spawn method"
        )
        for handle in self._open:
            handle.after_fork(self._ended)
        self._open, self._inbox, self._clearing = {}, deque(), []
        self._prefix_cache = None
        if not self.ready.done():
            self.ready = Future()
            self.ready.set_exception(self._ended)

    def _renew_locks(self) -> None:
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # Wakes the worker.
        self._room = threading.Condition(lock)  # Wakes callers that wait for room in the queue.

    def _waiting(self) -> int:
        return len(self._inbox) + len(self._scheduler.waiting)

    def _check_usable(self) -> None:
        if self._ended is not None:
            if isinstance(self._ended, DGemmaError):
                raise self._ended
            raise EngineDeadError(f"the engine's worker thread ended: {self._ended!r}") from self._ended
        if self._closing:
            raise EngineClosedError("the engine is closed; make a new one")

    # The worker thread.

    def _main(self) -> None:
        try:
            with torch.inference_mode():
                loaded = self._load()
                self._scheduler = Scheduler(loaded.max_batch_tokens, loaded.max_running)
                self._prefix_cache = loaded.prefix_cache
                self._count(weight_loads=1, load_s=loaded.load_s)
                self._restart_clocks()
                self.ready.set_result(None)
                steps = _StepRunner(loaded, self._on_out_of_memory)
                while self._drain():
                    self._step(loaded, steps)
            self._end(EngineClosedError("the engine was closed"))
        except BaseException as error:
            if not isinstance(error, DGemmaError):
                logger.exception("the engine's worker thread ended")
            self._end(error)

    def _restart_clocks(self) -> None:
        """Loading does not count as time of the requests that had to wait for it."""
        with self._changed:
            for sequence in self._open.values():
                sequence.restart_clock()

    def _step(self, loaded: Loaded, steps: _StepRunner) -> None:
        # A frame of its own: an idle thread must not hold on to the last step's requests, nor through them the engine.
        self._admit(loaded)
        with self._changed:
            self._room.notify_all()
        for part, reading, error in steps.run(self._scheduler.schedule()):
            # Before a request of this pass can end, so that whoever waits for it finds the pass counted.
            self._count(forward_passes=steps.passes - self._stats.forward_passes)
            try:
                self._advance(loaded, part, reading, error)
            except Exception as failure:
                self._fail(part.sequence, _as_engine_error(failure))

    def _drain(self) -> bool:
        """Take in new requests, cancellations and timeouts; waits while there is nothing to do. False: stop."""
        with self._changed:
            while not (self._closing or self._inbox or self._cancels or self._clearing or self._scheduler):
                self._changed.wait()
            self._clear_prefixes()
            if self._closing:
                return False
            while self._inbox:
                self._scheduler.add(self._inbox.popleft())
            cancels = [self._open[h] for h in self._cancels if h in self._open]
            self._cancels.clear()
            now = time.monotonic()
        for sequence in cancels:
            self._finish(sequence, "cancelled")
        # After the cancelled ones have left, so that none ends twice.
        with self._changed:
            late = [s for s in self._open.values() if s.deadline is not None and s.deadline <= now]
        for sequence in late:
            self._fail(sequence, RequestTimeoutError("the request did not finish within its timeout; it was dropped"))
        return True

    def _clear_prefixes(self) -> None:
        while self._clearing:
            held = self._prefix_cache.nbytes if self._prefix_cache else 0
            if self._prefix_cache is not None:
                self._prefix_cache.clear()
            self._clearing.pop().set_result(held)

    def _admit(self, loaded: Loaded) -> None:
        for sequence in self._scheduler.admit():
            try:
                cache = _retry_once(self._on_out_of_memory)(loaded.runner.new_cache, sequence.capacity)
                reused = loaded.prefix_cache.take(sequence.identities, cache)
            except Exception as error:
                if is_out_of_memory(error) and len(self._scheduler.running) > 1:
                    # Its turn comes again when a running sequence has given its memory back.
                    self._scheduler.running.remove(sequence)
                    self._scheduler.waiting.appendleft(sequence)
                    return
                self._fail(sequence, _as_engine_error(error))
                continue
            sequence.start(cache)
            if reused:
                self._count(prefix_hits=1, prefix_tokens=reused)

    def _remember(self, loaded: Loaded, sequence: Sequence, cache: SequenceCache) -> None:
        """Keep an encoded prompt for later requests, where there is memory for it."""
        try:
            loaded.prefix_cache.put(sequence.identities, cache)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._on_out_of_memory()

    def _advance(self, loaded: Loaded, part: Work, reading: Reading | None, error: Exception | None) -> None:
        """Book one part of a step: an error, an encoded chunk, or a denoised canvas."""
        sequence = part.sequence
        if error is not None:
            self._fail(sequence, _as_engine_error(error))
            return
        self._count(prefill_tokens=part.encode)
        if part.loan:
            self._count(prefix_hits=1, prefix_tokens=part.loan.length)
        if part.encode and not sequence.pending and sequence.cache is not None:
            self._remember(loaded, sequence, sequence.cache)
        if reading is None or sequence.canvas is None:
            return
        canvas, positions = sequence.canvas, part.sequence.active
        statistics, done = reading.statistics, True
        if statistics is not None:
            done = canvas.advance(statistics.argmax, statistics.sample, statistics.entropy)
        sequence.count_step(positions)
        self._count(denoising_steps=1, positions=positions)
        if sequence.guide is not None:
            done = sequence.review(done, loaded.runner.rows(canvas))
        if sequence.drafts:
            text = sequence.detokenizer.decode(_before_end(canvas.argmax.tolist(), loaded.end_ids))
            sequence.handle.emit(DraftEvent(text, canvas.steps, tuple(canvas.entropy.tolist())))
        if done:
            self._close_canvas(loaded, sequence)

    def _close_canvas(self, loaded: Loaded, sequence: Sequence) -> None:
        tokens, reason = sequence.close_canvas(loaded.end_ids)
        detokenizer = sequence.detokenizer
        thoughts, calls = len(detokenizer.reasoning), len(detokenizer.tool_calls)
        text, kept, stopped = detokenizer.add(tokens, last=reason is not None)
        if stopped:
            reason = "stop"
        if text or kept or (reason and not sequence.blocks):
            reasoning, called = detokenizer.reasoning[thoughts:], detokenizer.tool_calls[calls:]
            sequence.handle.emit(BlockEvent(text, kept, sequence.blocks, reasoning, called))
            sequence.blocks += 1
        if reason:
            self._finish(sequence, reason)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        detokenizer = sequence.detokenizer
        usage = sequence.usage()
        # With a guide, calls are whole however the answer ended.
        if detokenizer.tool_calls and (reason == "stop" or (reason == "length" and sequence.guide is not None)):
            reason = "tool_calls"
        generation = Generation(
            detokenizer.text, tuple(detokenizer.kept), reason, usage, detokenizer.tool_calls, detokenizer.reasoning
        )
        ending = "cancelled" if reason == "cancelled" else "finished"
        with self._changed:  # No snapshot shows a request that has left and is not counted.
            self._forget(sequence)
            self._count(**{ending: 1}, completion_tokens=usage.completion_tokens, canvases=usage.canvases)
        sequence.handle.finish(generation)
        self._close_handle(sequence)

    def _fail(self, sequence: Sequence, error: BaseException) -> None:
        with self._changed:
            self._forget(sequence)
            self._count(failed=1)
        sequence.handle.fail(error)
        self._close_handle(sequence)

    def _forget(self, sequence: Sequence) -> None:
        # Before its handle resolves, so that whoever waits for it finds the engine idle.
        with self._changed:
            self._scheduler.remove(sequence)
            self._room.notify_all()
        sequence.cache = None
        sequence.canvas = None

    def _close_handle(self, sequence: Sequence) -> None:
        # After it has resolved, so that a fork in between leaves no handle that nobody ends.
        with self._changed:
            self._open.pop(sequence.handle, None)

    def _end(self, error: BaseException) -> None:
        with self._changed:
            self._ended = error
            self._room.notify_all()
            left = list(self._open.values())
            self._clear_prefixes()
            self._prefix_cache = None
        if not self.ready.done():
            self.ready.set_exception(error)
        for sequence in left:
            if isinstance(error, DGemmaError):
                self._fail(sequence, error)
            else:
                dead = EngineDeadError(f"the engine's worker thread ended: {error!r}")
                dead.__cause__ = error
                self._fail(sequence, dead)

    def _on_out_of_memory(self) -> None:
        logger.warning("out of memory: the prefix cache is dropped")
        if self._prefix_cache is not None:
            self._prefix_cache.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _count(self, **more: float) -> None:
        with self._changed:
            current = self._stats
            changes: dict[str, Any] = {name: getattr(current, name) + value for name, value in more.items()}
            changes["max_batch"] = max(current.max_batch, len(self._scheduler.running))
            self._stats = replace(current, **changes)


class _StepRunner:
    """Runs a step's work, isolating what fails.

    A pass that ran out of memory is tried again after the prefix cache is dropped; a pass that still fails, for
    whatever reason, is split in halves, so that only a request that cannot run alone fails, with its own error.
    """

    def __init__(self, loaded: Loaded, on_out_of_memory: Callable[[], None]) -> None:
        self._runner = loaded.runner
        self._retrying = _retry_once(on_out_of_memory)
        self.passes = 0

    def run(self, work: Seq[Work]) -> Iterator[tuple[Work, Reading | None, Exception | None]]:
        if not work:
            return
        try:
            readings = self._retrying(self._runner.run, work)
        except Exception as error:
            if len(work) == 1:
                yield work[0], None, error
                return
            middle = len(work) // 2
            yield from self.run([w.alone() for w in work[:middle]])
            yield from self.run([w.alone() for w in work[middle:]])
            return
        self.passes += 1
        try:
            self._runner.commit(work, readings)
        except Exception as error:  # Some may have been taken over already, so none can be tried again.
            yield from ((part, None, error) for part in work)
            return
        for part, result in zip(work, readings, strict=True):
            yield part, result, None


def _retry_once(on_out_of_memory: Callable[[], None]) -> Retrying:
    def drop(_state: RetryCallState) -> None:
        on_out_of_memory()

    return Retrying(
        retry=retry_if_exception(is_out_of_memory), stop=stop_after_attempt(2), before_sleep=drop, reraise=True
    )


def _as_engine_error(error: BaseException) -> BaseException:
    if isinstance(error, DGemmaError):
        return error
    if is_out_of_memory(error):
        wrapped: DGemmaError = OutOfMemoryError(
            f"the request does not fit into memory even alone: {error}. Lower max_new_tokens or the prompt's length, "
            "or load with quantization or a smaller dtype."
        )
    else:
        wrapped = DGemmaError(f"the request failed in a denoising step: {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _before_end(tokens: Seq[int], end_ids: frozenset[int]) -> Seq[int]:
    return tokens[: next((i for i, token in enumerate(tokens) if token in end_ids), len(tokens))]
