"""A request handle, driven as a worker drives it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dgemma_core.api import BlockEvent, Event, FinishedEvent, Generation, RequestHandle, Usage
from dgemma_core.errors import DGemmaError, EngineClosedError, RequestTimeoutError

ANSWER = Generation("ab", (1, 2), "stop", Usage(completion_tokens=2))
BLOCKS = [BlockEvent("a", (1,), 0), BlockEvent("b", (2,), 1)]
EVENTS: list[Event] = [*BLOCKS, FinishedEvent(ANSWER)]
SOON = 10.0  # seconds within which another thread must have come


@pytest.fixture
def cancelled() -> list[RequestHandle]:
    return []


@pytest.fixture
def handle(cancelled: list[RequestHandle]) -> RequestHandle:
    return RequestHandle(cancelled.append)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def run(handle: RequestHandle) -> None:
    for block in BLOCKS:
        handle.emit(block)
    handle.finish(ANSWER)


async def collect(handle: RequestHandle) -> list[Event]:
    return [event async for event in handle]


def test_a_late_reader_sees_every_event_in_order(handle: RequestHandle) -> None:
    run(handle)
    assert list(handle) == EVENTS
    assert list(handle) == EVENTS
    assert asyncio.run(collect(handle)) == EVENTS
    assert handle.result() == ANSWER
    assert handle.done()


def test_a_reader_sees_an_event_before_the_next_comes(handle: RequestHandle) -> None:
    events = iter(handle)
    handle.emit(BLOCKS[0])
    assert next(events) == BLOCKS[0]
    assert not handle.done()
    handle.emit(BLOCKS[1])
    assert next(events) == BLOCKS[1]
    handle.finish(ANSWER)
    assert list(events) == EVENTS[2:]


def test_a_reader_waits_for_what_comes_later(handle: RequestHandle, pool: ThreadPoolExecutor) -> None:
    reader = pool.submit(lambda: list(handle))
    with pytest.raises(TimeoutError):
        reader.result(0.02)
    for block in BLOCKS:
        handle.emit(block)
    with pytest.raises(TimeoutError):
        reader.result(0.02)
    handle.finish(ANSWER)
    assert reader.result(SOON) == EVENTS


def test_several_threads_and_loops_read_at_once(handle: RequestHandle, pool: ThreadPoolExecutor) -> None:
    started = threading.Barrier(5)

    def read() -> list[Event]:
        started.wait(SOON)
        return list(handle)

    def read_on_a_loop() -> list[Event]:
        started.wait(SOON)
        return asyncio.run(collect(handle))

    readers = [pool.submit(work) for work in (read, read, read_on_a_loop, read_on_a_loop)]
    started.wait(SOON)
    run(handle)
    assert [reader.result(SOON) for reader in readers] == [EVENTS] * 4


def test_waiting_readers_are_woken_from_another_thread(handle: RequestHandle, pool: ThreadPoolExecutor) -> None:
    async def both() -> tuple[list[Event], Generation]:
        events, result = asyncio.ensure_future(collect(handle)), asyncio.ensure_future(_awaited(handle))
        await asyncio.sleep(0)  # both wait now
        pool.submit(run, handle)
        return await asyncio.wait_for(events, SOON), await asyncio.wait_for(result, SOON)

    assert asyncio.run(both()) == (EVENTS, ANSWER)


async def _awaited(handle: RequestHandle) -> Generation:
    return await handle


def test_a_result_that_is_not_there_in_time(handle: RequestHandle, cancelled: list[RequestHandle]) -> None:
    with pytest.raises(RequestTimeoutError, match=r"no result within 0.001 s; the request is still running"):
        handle.result(timeout=0.001)
    assert not cancelled
    run(handle)
    assert handle.result(timeout=0) == ANSWER


def test_a_request_that_timed_out_says_so_itself(handle: RequestHandle) -> None:
    error = RequestTimeoutError("dropped after 5 s")
    handle.fail(error)
    with pytest.raises(RequestTimeoutError) as caught:
        handle.result(timeout=1)
    assert caught.value is error


def test_readers_of_a_failed_request_see_its_events_then_its_error(handle: RequestHandle) -> None:
    handle.emit(BLOCKS[0])
    handle.fail(DGemmaError("broken"))
    events = iter(handle)
    assert next(events) == BLOCKS[0]
    with pytest.raises(DGemmaError, match="broken"):
        next(events)
    with pytest.raises(DGemmaError, match="broken"):
        handle.result()
    with pytest.raises(DGemmaError, match="broken"):
        asyncio.run(collect(handle))
    with pytest.raises(DGemmaError, match="broken"):
        asyncio.run(_awaited(handle))


def test_cancel_reaches_the_engine_once(handle: RequestHandle, cancelled: list[RequestHandle]) -> None:
    handle.cancel()
    handle.cancel()
    assert cancelled == [handle]
    assert not handle.done()  # The engine ends it, with the text so far.


def test_nothing_is_cancelled_after_the_end(handle: RequestHandle, cancelled: list[RequestHandle]) -> None:
    run(handle)
    handle.cancel()
    assert not cancelled


def test_only_the_first_end_counts(handle: RequestHandle, cancelled: list[RequestHandle]) -> None:
    run(handle)
    handle.fail(DGemmaError("too late"))
    handle.finish(Generation("other", (), "length", Usage()))
    assert handle.result() == ANSWER
    assert list(handle) == EVENTS

    failed = RequestHandle(cancelled.append)
    failed.fail(DGemmaError("first"))
    failed.finish(ANSWER)
    failed.fail(DGemmaError("second"))
    with pytest.raises(DGemmaError, match="first"):
        list(failed)


@pytest.mark.parametrize("read", [collect, _awaited])
def test_a_cancelled_task_cancels_its_request(
    handle: RequestHandle, cancelled: list[RequestHandle], read: object
) -> None:
    async def start_and_cancel() -> None:
        task = asyncio.ensure_future(read(handle))  # type: ignore[operator]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(start_and_cancel())
    assert cancelled == [handle]
    run(handle)  # Nobody listens on the closed loop any more; the worker does not notice.
    assert handle.result() == ANSWER


def test_one_cancelled_reader_leaves_the_others_their_events(handle: RequestHandle) -> None:
    async def two_readers() -> list[Event]:
        first, second = asyncio.ensure_future(collect(handle)), asyncio.ensure_future(collect(handle))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        run(handle)
        return await asyncio.wait_for(second, SOON)

    assert asyncio.run(two_readers()) == EVENTS


def test_a_reader_that_stops_early_cancels_nothing(handle: RequestHandle, cancelled: list[RequestHandle]) -> None:
    async def first() -> Event:
        events = aiter(handle)
        event = await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        return event

    handle.emit(BLOCKS[0])
    assert asyncio.run(first()) == BLOCKS[0]
    assert next(iter(handle)) == BLOCKS[0]
    assert not cancelled
    assert not handle._wakers  # The worker wakes nobody who has left.


def test_a_loop_closed_while_reading_does_not_disturb_the_worker(handle: RequestHandle) -> None:
    loop = asyncio.new_event_loop()
    events = aiter(handle)
    handle.emit(BLOCKS[0])
    assert loop.run_until_complete(anext(events)) == BLOCKS[0]  # type: ignore[arg-type]
    loop.close()
    handle.emit(BLOCKS[1])
    handle.finish(ANSWER)
    assert list(handle) == EVENTS


def test_after_a_fork_the_child_has_an_error(
    handle: RequestHandle, cancelled: list[RequestHandle], pool: ThreadPoolExecutor
) -> None:
    handle.emit(BLOCKS[0])
    held, forked = threading.Event(), threading.Event()

    def hold_the_lock() -> None:
        with handle._changed:
            held.set()
            forked.wait()

    def read() -> None:
        events = iter(handle)
        assert next(events) == BLOCKS[0]
        with pytest.raises(EngineClosedError, match="parent"):
            next(events)

    holder = pool.submit(hold_the_lock)
    assert held.wait(SOON)
    try:
        handle.after_fork(EngineClosedError("it goes on in the parent"))
        # The lock that another thread held at the fork is never released in the child.
        pool.submit(read).result(SOON)
        pool.submit(handle.cancel).result(SOON)
    finally:
        forked.set()
    holder.result(SOON)
    assert handle.done()
    assert not cancelled
    with pytest.raises(EngineClosedError, match="parent"):
        handle.result(timeout=0)
