"""What callers leave for the worker: room, waiting for it, cancellations, a fork."""

from __future__ import annotations

import threading
import time

import pytest

from dgemma_core.engine.inbox import Inbox
from dgemma_core.errors import EngineClosedError, QueueFullError
from tests.core.engine.making import make_sequence


class Callbacks:
    """What an inbox asks of the rest of the engine."""

    def __init__(self, max_queue: int = 2) -> None:
        self.closed = False
        self.scheduled = 0
        self.inbox = Inbox(max_queue, self.check_usable, lambda: self.scheduled)

    def check_usable(self) -> None:
        if self.closed:
            raise EngineClosedError("closed")


def in_thread(inbox: Inbox, count: int = 1, timeout: float | None = None) -> tuple[threading.Thread, list[object]]:
    """Puts sequences from another thread, waiting for room; that it does wait is certain when this returns."""
    outcome: list[object] = []
    sequences = tuple(make_sequence(3, timeout=timeout) for _ in range(count))

    def put() -> None:
        try:
            inbox.put(sequences, wait=True)
            outcome.extend(sequences)
        except EngineClosedError as error:
            outcome.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    while thread.is_alive() and not inbox._room._waiters:  # type: ignore[attr-defined]
        time.sleep(0.001)
    return thread, outcome


def test_what_was_put_is_taken_in_order() -> None:
    inbox = Callbacks(9).inbox
    a, b, c = (make_sequence(3) for _ in range(3))
    inbox.put((a, b), False)
    inbox.put((c,), False)
    assert inbox.waiting == 3
    assert list(inbox.open) == [a.handle, b.handle, c.handle]
    assert inbox.take() == ([a, b, c], [], [])
    assert inbox.take() == ([], [], [])
    assert inbox.waiting == 0
    assert len(inbox.open) == 3, "they are open until they are closed"
    inbox.close(b.handle)
    inbox.close(b.handle)
    assert list(inbox.open) == [a.handle, c.handle]


def test_room_counts_what_the_scheduler_has_waiting() -> None:
    engine = Callbacks(3)
    engine.scheduled = 2
    engine.inbox.put((make_sequence(3),), False)
    assert engine.inbox.waiting == 3
    with pytest.raises(QueueFullError, match=r"max_queue=3: 3 requests are waiting, .* 1 more"):
        engine.inbox.put((make_sequence(3),), False)


def test_all_are_queued_or_none() -> None:
    inbox = Callbacks(2).inbox
    inbox.put((make_sequence(3),), False)
    with pytest.raises(QueueFullError):
        inbox.put((make_sequence(3), make_sequence(3)), False)
    assert (inbox.waiting, len(inbox.open)) == (1, 1)


def test_more_than_the_queue_holds_is_refused_even_by_who_would_wait() -> None:
    with pytest.raises(QueueFullError, match=r"max_queue=2: 0 requests .* 3 more"):
        Callbacks(2).inbox.put(tuple(make_sequence(3) for _ in range(3)), True)


def test_a_closed_engine_takes_nothing() -> None:
    engine = Callbacks()
    engine.closed = True
    with pytest.raises(EngineClosedError):
        engine.inbox.put((make_sequence(3),), True)
    assert engine.inbox.waiting == 0


def test_waiting_ends_when_there_is_room() -> None:
    engine = Callbacks(2)
    engine.inbox.put((make_sequence(3), make_sequence(3)), False)
    thread, outcome = in_thread(engine.inbox)
    assert thread.is_alive()
    new, _, _ = engine.inbox.take()
    engine.scheduled = len(new)  # Taken in, but not admitted yet: no room.
    engine.inbox.made_room()
    while not engine.inbox._room._waiters:  # type: ignore[attr-defined]
        time.sleep(0.001)
    assert not outcome
    engine.scheduled = 1
    engine.inbox.made_room()
    thread.join(10)
    assert len(outcome) == 1


def test_a_waiting_request_that_ends_makes_room() -> None:
    engine = Callbacks(1)
    first = make_sequence(3)
    engine.inbox.put((first,), False)
    thread, outcome = in_thread(engine.inbox)
    engine.inbox.take()
    engine.inbox.close(first.handle)
    thread.join(10)
    assert len(outcome) == 1


def test_a_timeout_counts_from_when_there_was_room() -> None:
    engine = Callbacks(1)
    engine.inbox.put((make_sequence(3),), False)
    thread, outcome = in_thread(engine.inbox, timeout=50.0)
    time.sleep(0.05)
    engine.inbox.take()
    room = time.monotonic()
    engine.inbox.made_room()
    thread.join(10)
    (sequence,) = outcome
    assert sequence.costs.deadline >= room + 50.0  # type: ignore[attr-defined]


def test_who_waits_for_room_is_told_that_the_engine_closed() -> None:
    engine = Callbacks(1)
    engine.inbox.put((make_sequence(3),), False)
    thread, outcome = in_thread(engine.inbox)
    with engine.inbox.lock:
        engine.closed = True
        engine.inbox.wake()
    thread.join(10)
    assert isinstance(outcome[0], EngineClosedError)
    assert engine.inbox.waiting == 1


def test_only_open_requests_are_cancelled() -> None:
    inbox = Callbacks().inbox
    queued, ended = make_sequence(3), make_sequence(3)
    inbox.put((queued, ended), False)
    inbox.close(ended.handle)
    inbox.cancel(ended.handle)
    inbox.cancel(queued.handle)
    inbox.cancel(make_sequence(3).handle)
    new, cancelled, _ = inbox.take()
    assert new == [queued, ended]
    assert cancelled == [queued]
    assert inbox.take()[1] == []


@pytest.mark.parametrize("what", ["request", "cancellation", "clearing", "busy"])
def test_the_worker_sleeps_until_there_is_something(what: str) -> None:
    inbox = Callbacks().inbox
    busy = threading.Event()
    thread = threading.Thread(target=lambda: inbox.wait(busy.is_set))
    thread.start()
    while not inbox._something._waiters:  # type: ignore[attr-defined]
        time.sleep(0.001)
    inbox.wake()  # Nothing is there: it sleeps on.
    thread.join(0.02)
    assert thread.is_alive()
    if what == "request":
        inbox.put((make_sequence(3),), False)
    elif what == "cancellation":
        inbox.cancel(make_sequence(3).handle)
    elif what == "clearing":
        inbox.clear_prefixes()
    else:
        busy.set()
        inbox.wake()
    thread.join(10)
    assert not thread.is_alive()


def test_who_wants_prefixes_cleared_gets_a_future() -> None:
    inbox = Callbacks().inbox
    done = [inbox.clear_prefixes(), inbox.clear_prefixes()]
    assert inbox.take()[2] == done
    assert inbox.take()[2] == []


def test_after_a_fork_everything_is_forgotten_and_nothing_is_locked() -> None:
    inbox = Callbacks(2).inbox
    sequences = (make_sequence(3), make_sequence(3))
    inbox.put(sequences, False)
    inbox.cancel(sequences[0].handle)
    inbox.clear_prefixes()
    holder = threading.Thread(target=inbox.lock.acquire)  # The thread ends, and nobody gives the lock back.
    holder.start()
    holder.join()
    assert not inbox.lock.acquire(timeout=0.01)
    inbox.renew_locks()
    assert inbox.abandon() == [sequence.handle for sequence in sequences]
    assert inbox.take() == ([], [], [])
    assert not inbox.open
    inbox.put(sequences, False)


def test_callers_on_loops_are_called_in_one_by_one() -> None:
    engine = Callbacks(2)
    engine.inbox.put((make_sequence(3), make_sequence(3)), False)
    first, second = engine.inbox.next_room(), engine.inbox.next_room()
    engine.inbox.made_room()
    assert not first.done()
    engine.inbox.take()
    engine.scheduled = 1
    engine.inbox.made_room()
    assert first.done()
    assert not second.done()
    engine.inbox.wake()
    assert second.done(), "the engine closes, and everybody must see it"
