"""The worker thread: start, load, time, close and die, and that no request is ever left without an end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dgemma_core import Engine, LoadSpec, RequestHandle, SamplingParams
from dgemma_core.engine import loading as loading_module
from dgemma_core.engine.loop import Loaded, Loop
from dgemma_core.engine.sequence import Sequence
from dgemma_core.engine.worker import Worker
from dgemma_core.errors import (
    CheckpointError,
    EngineClosedError,
    EngineDeadError,
    QueueFullError,
    RequestTimeoutError,
)
from dgemma_core.execution.backend import Step, StepResult
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import make_model, make_tokenizer
from tests.core.engine.making import END_IDS, make_sequence

SHORT = SamplingParams(max_new_tokens=4, max_denoising_steps=1, seed=0)
ENDLESS = SamplingParams(max_new_tokens=1500, max_denoising_steps=4, confidence_threshold=1e-9, seed=0)


class SlowBackend(EagerBackend):
    """Each pass waits for the test to say go."""

    def __init__(self) -> None:
        super().__init__(make_model(never_ends=True))
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def run(self, step: Step) -> StepResult:
        self.began.release()
        assert self.go.acquire(timeout=30)
        return super().run(step)


def loaded(backend: EagerBackend, **more: Any) -> Loaded:
    limits = {"prefix_cache_bytes": 10**6, "max_batch_tokens": 1000, "max_running": 8} | more
    return Loaded(backend=backend, end_ids=frozenset(END_IDS.tolist()), load_s=0.25, **limits)


@pytest.fixture
def workers() -> Iterator[Callable[..., Worker]]:
    """Makes workers, and closes them in the end."""
    made: list[Worker] = []

    def make(load: Callable[[], Loaded], max_queue: int = 8) -> Worker:
        made.append(Worker(load, max_queue, "worker of a test"))
        return made[-1]

    yield make
    for worker in made:
        worker.close(10)


def queued(worker: Worker, room: int = 8, **options: Any) -> Sequence:
    sequence = make_sequence(3, room=room, handle=RequestHandle(worker.cancel), **options)
    worker.submit(sequence)
    return sequence


# Start and load.


def test_a_thread_that_does_not_start_is_tried_again(
    workers: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers(lambda: loaded(EagerBackend(make_model())))

    def start(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            queued(worker)
    assert queued(worker).handle.result(30).token_ids


def test_an_interrupted_start_does_not_start_twice(
    workers: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []

    def load() -> Loaded:
        loads.append(1)
        return loaded(EagerBackend(make_model()))

    worker = workers(load)
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.start()
    assert queued(worker).handle.result(30).token_ids
    assert worker.ready.result(30) is None
    assert len(loads) == 1


async def test_a_cancelled_task_gives_its_place_in_the_line_away(workers: Callable[..., Worker]) -> None:
    backend = SlowBackend()
    worker = workers(lambda: loaded(backend, max_running=1), max_queue=1)

    def sequence() -> Sequence:
        return make_sequence(3, room=8, handle=RequestHandle(worker.cancel))

    running, waiting, gone, late = (sequence() for _ in range(4))
    worker.submit(running)
    assert await asyncio.to_thread(backend.began.acquire, timeout=30)
    worker.submit(waiting)
    leaving = asyncio.ensure_future(worker.asubmit(gone, wait=True))
    staying = asyncio.ensure_future(worker.asubmit(late, wait=True))
    with pytest.raises(QueueFullError):
        await worker.asubmit(sequence())
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    backend.go.release(1000)
    await staying
    assert (await late.handle).token_ids
    assert not gone.handle.done()
    assert worker.stats().submitted == 3


def test_one_thread_loads_once(workers: Callable[..., Worker]) -> None:
    loads = []

    def load() -> Loaded:
        loads.append(threading.current_thread())
        return loaded(EagerBackend(make_model()))

    worker = workers(load)
    handles = [queued(worker).handle for _ in range(3)]
    worker.start()
    for handle in handles:
        handle.result(30)
    assert worker.ready.result(30) is None
    assert len(loads) == 1
    assert loads[0] is not threading.current_thread()
    stats = worker.stats()
    assert (stats.submitted, stats.finished, stats.weight_loads, stats.load_s) == (3, 3, 1, 0.25)
    assert (stats.running, stats.waiting, stats.kv_bytes) == (0, 0, 0)


def test_a_load_that_fails_ends_every_request(workers: Callable[..., Worker]) -> None:
    go = threading.Event()

    def load() -> Loaded:
        assert go.wait(30)
        raise CheckpointError("nothing there")

    worker = workers(load)
    handles = [queued(worker).handle for _ in range(2)]
    clearing: list[int] = []
    clear = threading.Thread(target=lambda: clearing.append(worker.clear_prefix_cache()))
    clear.start()
    while not worker._inbox._clearing:
        time.sleep(0.001)
    go.set()
    for handle in handles:
        with pytest.raises(CheckpointError, match="nothing there"):
            handle.result(30)
    clear.join(30)
    assert clearing == [0]
    with pytest.raises(CheckpointError):
        worker.ready.result(30)
    with pytest.raises(CheckpointError):
        queued(worker)
    assert worker.ended
    assert (worker.stats().failed, worker.stats().waiting) == (2, 0)


def test_who_waits_for_room_while_the_load_fails_is_told(workers: Callable[..., Worker]) -> None:
    go = threading.Event()

    def load() -> Loaded:
        assert go.wait(30)
        raise CheckpointError("nothing there")

    worker = workers(load, max_queue=1)
    queued(worker)
    with pytest.raises(QueueFullError):
        queued(worker)
    told: list[BaseException] = []

    def wait_for_room() -> None:
        with pytest.raises(CheckpointError) as caught:
            worker.submit(make_sequence(3), wait=True)
        told.append(caught.value)

    thread = threading.Thread(target=wait_for_room)
    thread.start()
    while not worker._inbox._room._waiters:  # type: ignore[attr-defined]
        time.sleep(0.001)
    go.set()
    thread.join(30)
    assert len(told) == 1
    assert worker.stats().submitted == 1


# Time.


def test_loading_restarts_the_clocks(workers: Callable[..., Worker]) -> None:
    go = threading.Event()

    def load() -> Loaded:
        assert go.wait(30)
        return loaded(EagerBackend(make_model()))

    worker = workers(load)
    sequence = queued(worker, timeout=20.0)
    sequence.costs.deadline = 0.0  # As after a load that took for ever.
    go.set()
    assert sequence.handle.result(30).token_ids


def take_in(worker: Worker, loop: Loop) -> None:
    assert worker._take_in(loop)


def stepless(on_end: Callable[[Worker, Sequence], None] | None = None) -> tuple[Worker, Loop]:
    """A worker that is not started, and a loop of its own: the test is the thread."""
    worker = Worker(lambda: pytest.fail("nothing is loaded"), 8, "not started")

    def end(sequence: Sequence) -> None:
        worker._close_handle(sequence)
        if on_end is not None:
            on_end(worker, sequence)

    loop = Loop(loaded(EagerBackend(make_model())), worker._counters, end)
    worker._loop = loop
    return worker, loop


def test_a_request_whose_time_is_up_is_dropped_wherever_it_is() -> None:
    worker, loop = stepless()
    running, waiting, patient = (make_sequence(3, timeout=60.0) for _ in range(3))
    worker._inbox.put((running,), False)
    take_in(worker, loop)
    loop.admit()
    worker._inbox.put((waiting, patient), False)
    take_in(worker, loop)
    assert not any(s.handle.done() for s in (running, waiting, patient))
    running.costs.deadline = waiting.costs.deadline = 0.0
    take_in(worker, loop)
    for late in (running, waiting):
        with pytest.raises(RequestTimeoutError):
            late.handle.result(0)
    assert loop.scheduler.sequences() == [patient]
    assert not loop.backend._slots  # type: ignore[attr-defined]
    assert worker._counters.snapshot().failed == 2


def test_a_request_that_comes_late_and_while_another_leaves_ends_once() -> None:
    """What still lies in the inbox is not dropped there: it would be taken in after its end."""
    late = make_sequence(3, timeout=60.0)
    late.costs.deadline = 0.0

    def put_late(worker: Worker, sequence: Sequence) -> None:
        if sequence is first:
            worker._inbox.put((late,), False)

    worker, loop = stepless(put_late)
    first = make_sequence(3)
    worker._inbox.put((first,), False)
    worker.cancel(first.handle)
    take_in(worker, loop)
    assert first.handle.result(0).finish_reason == "cancelled"
    take_in(worker, loop)
    assert late.handle.done()
    assert not loop.scheduler
    stats = worker._counters.snapshot()
    assert (stats.cancelled, stats.failed) == (1, 1)


def test_who_is_cancelled_and_late_ends_once() -> None:
    worker, loop = stepless()
    sequence = make_sequence(3, timeout=60.0)
    worker._inbox.put((sequence,), False)
    sequence.costs.deadline = 0.0
    worker.cancel(sequence.handle)
    take_in(worker, loop)
    assert sequence.handle.result(0).finish_reason == "cancelled"
    stats = worker._counters.snapshot()
    assert (stats.cancelled, stats.failed) == (1, 0)


def test_a_cancelled_request_leaves_before_the_next_step(workers: Callable[..., Worker]) -> None:
    backend = SlowBackend()
    worker = workers(lambda: loaded(backend, prefix_cache_bytes=0))
    first = queued(worker, room=1000)
    assert backend.began.acquire(timeout=30)
    second = queued(worker, room=1000)
    second.handle.cancel()
    backend.go.release()
    assert second.handle.result(30).token_ids == ()
    assert not first.handle.done()
    assert worker.stats().running == 1
    first.handle.cancel()
    backend.go.release(9)
    assert first.handle.result(30).finish_reason == "cancelled"
    assert not backend._slots


# The prefix cache.


def test_before_the_start_there_is_nothing_to_clear(workers: Callable[..., Worker]) -> None:
    worker = workers(lambda: pytest.fail("nothing is loaded"))
    assert worker.clear_prefix_cache() == 0
    assert worker.stats().waiting == 0


def test_clearing_frees_what_is_held(workers: Callable[..., Worker]) -> None:
    backend = EagerBackend(make_model())
    worker = workers(lambda: loaded(backend))
    queued(worker).handle.result(30)
    held = worker.stats().prefix_cache_bytes
    assert held > 0
    assert worker.clear_prefix_cache() == held
    assert worker.stats().prefix_cache_bytes == 0
    assert not backend._slots
    assert worker.clear_prefix_cache() == 0


def test_who_clears_is_answered_even_where_it_fails(
    workers: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EagerBackend(make_model())
    worker = workers(lambda: loaded(backend))
    queued(worker).handle.result(30)

    def close(_slot: int) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(backend, "close", close)
    freed: list[int] = []
    thread = threading.Thread(target=lambda: freed.append(worker.clear_prefix_cache()), daemon=True)
    thread.start()
    thread.join(30)
    assert freed == [0]
    worker.close()
    with pytest.raises(EngineDeadError, match="device lost"):
        queued(worker)


# The end.


def test_closing_before_the_thread_runs_loads_nothing(workers: Callable[..., Worker]) -> None:
    worker = workers(lambda: pytest.fail("nothing is loaded"))
    with worker._inbox.lock:  # The thread waits for it.
        sequence = queued(worker)
        worker.close(0)
    with pytest.raises(EngineClosedError):
        sequence.handle.result(30)
    with pytest.raises(EngineClosedError):
        worker.ready.result(30)
    assert worker.stats().weight_loads == 0


def test_closing_while_it_loads_ends_every_request(workers: Callable[..., Worker]) -> None:
    loads, go = threading.Event(), threading.Event()

    def load() -> Loaded:
        loads.set()
        assert go.wait(30)
        return loaded(EagerBackend(make_model()))

    worker = workers(load)
    sequence = queued(worker)
    assert loads.wait(30)
    worker.close(0)
    with pytest.raises(EngineClosedError):
        queued(worker)
    assert not sequence.handle.done()
    go.set()
    with pytest.raises(EngineClosedError):
        sequence.handle.result(30)
    worker.close()
    assert worker.ended


def test_closing_ends_requests_in_every_state(workers: Callable[..., Worker]) -> None:
    """One that runs, one that waits for a slot, one in the inbox, one that waits for room in it."""
    backend = SlowBackend()
    worker = workers(lambda: loaded(backend, max_running=1), max_queue=1)
    running = queued(worker, room=1000)
    assert backend.began.acquire(timeout=30)
    waiting = queued(worker)
    told: list[BaseException] = []

    def wait_for_room() -> None:
        with pytest.raises(EngineClosedError) as caught:
            worker.submit(make_sequence(3), wait=True)
        told.append(caught.value)

    thread = threading.Thread(target=wait_for_room)
    thread.start()
    while not worker._inbox._room._waiters:  # type: ignore[attr-defined]
        time.sleep(0.001)
    worker.close(0)
    backend.go.release(9)
    for sequence in (running, waiting):
        with pytest.raises(EngineClosedError):
            sequence.handle.result(30)
    thread.join(30)
    assert len(told) == 1
    worker.close()
    stats = worker.stats()
    assert (stats.submitted, stats.failed, stats.running, stats.waiting) == (2, 2, 0, 0)


def test_a_worker_that_dies_ends_every_request_whatever_else_fails(
    workers: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = SlowBackend()
    worker = workers(lambda: loaded(backend, max_running=2))
    sequences = [queued(worker, room=1000) for _ in range(4)]
    assert backend.began.acquire(timeout=30)

    def broken(*_arguments: Any) -> None:
        raise AssertionError("broke")

    assert worker._loop is not None
    monkeypatch.setattr(backend, "close", broken)
    monkeypatch.setattr(worker._loop.scheduler, "schedule", broken)
    backend.go.release(9)
    for sequence in sequences:
        with pytest.raises(EngineDeadError, match="broke") as caught:
            sequence.handle.result(30)
        assert isinstance(caught.value.__cause__, AssertionError)
    stats = worker.stats()
    assert (stats.failed, stats.running, stats.waiting, stats.kv_bytes) == (4, 0, 0, 0)
    assert worker.ended


def test_a_slot_that_cannot_be_closed_costs_one_request(
    workers: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = EagerBackend(make_model())
    worker = workers(lambda: loaded(backend, prefix_cache_bytes=0))
    queued(worker).handle.result(30)
    close, failed = backend.close, []

    def close_once(slot: int) -> None:
        if not failed:
            failed.append(slot)
            raise RuntimeError("device lost")
        close(slot)

    monkeypatch.setattr(backend, "close", close_once)
    with pytest.raises(Exception, match="device lost"):
        queued(worker).handle.result(30)
    assert queued(worker).handle.result(30).token_ids
    stats = worker.stats()
    assert (stats.finished, stats.failed) == (2, 1)


# Engines that are forgotten.


def ends(thread: threading.Thread) -> bool:
    gc.collect()
    thread.join(10)
    return not thread.is_alive()


def thread_of(engine: Engine) -> threading.Thread:
    thread = engine._worker._thread
    assert thread is not None
    return thread


def test_who_holds_a_handle_holds_the_engine() -> None:
    def submit() -> tuple[RequestHandle, threading.Thread]:
        engine = Engine.from_model(make_model(never_ends=True), make_tokenizer())
        return engine.submit([2, 50], SHORT), thread_of(engine)

    handle, thread = submit()
    gc.collect()
    assert handle.result(30).token_ids
    del handle
    assert ends(thread)


def test_an_engine_is_not_forgotten_while_a_request_runs() -> None:
    def submit() -> tuple[RequestHandle, threading.Thread]:
        engine = Engine.from_model(make_model(never_ends=True), make_tokenizer())
        engine.load()
        return engine.submit([2, 50], ENDLESS), thread_of(engine)

    handle, thread = submit()
    gc.collect()
    assert next(iter(handle))
    handle.cancel()
    assert handle.result(30).finish_reason == "cancelled"
    del handle
    assert ends(thread)


def test_an_engine_forgotten_while_it_loads_ends_its_thread(
    tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the callback that is told of the progress holds the engine."""
    go, original = threading.Event(), loading_module.load_weights

    def slow(*arguments: Any) -> Any:
        assert go.wait(30)
        return original(*arguments)

    monkeypatch.setattr(loading_module, "load_weights", slow)

    def begin() -> threading.Thread:
        engine = Engine(LoadSpec(model=tiny_checkpoint))
        engine._begin_loading(lambda _line: engine.closed)
        return thread_of(engine)

    thread = begin()
    gc.collect()
    go.set()
    thread.join(0.5)
    assert ends(thread)
