"""The engine's counters."""

from __future__ import annotations

import threading

from dgemma_core import EngineStats
from dgemma_core.engine.counters import Counters


def test_counters_add_up() -> None:
    counters = Counters(threading.RLock())
    counters.add(submitted=2, load_s=0.5)
    counters.add(submitted=1, positions=7)
    assert counters.snapshot() == EngineStats(submitted=3, positions=7, load_s=0.5)


def test_the_highest_value_is_kept() -> None:
    counters = Counters(threading.RLock())
    for batch in (3, 5, 4):
        counters.raise_to(max_batch=batch)
    assert counters.snapshot().max_batch == 5


def test_a_snapshot_is_filled_in_and_stays_as_it_is() -> None:
    counters = Counters(threading.RLock())
    before = counters.snapshot(waiting=4, running=1)
    counters.add(finished=1)
    assert (before.waiting, before.running, before.finished) == (4, 1, 0)
    assert counters.snapshot().waiting == 0


def test_nothing_is_lost_between_threads() -> None:
    counters = Counters(threading.RLock())

    def count() -> None:
        for _ in range(500):
            counters.add(positions=1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.snapshot().positions == 2000


def test_who_holds_the_lock_sees_no_change() -> None:
    counters = Counters(threading.RLock())
    thread = threading.Thread(target=lambda: counters.add(finished=1))
    with counters.lock:
        thread.start()
        thread.join(0.02)
        assert counters.snapshot().finished == 0
    thread.join()
    assert counters.snapshot().finished == 1
