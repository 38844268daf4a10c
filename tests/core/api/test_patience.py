"""Waits that Ctrl-C always ends."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from dgemma_core.api.patience import patience, result_of
from tests.helpers.interrupts import interrupted


def test_only_the_main_thread_looks_up() -> None:
    seen: list[float | None] = [patience()]
    thread = threading.Thread(target=lambda: seen.append(patience()))
    thread.start()
    thread.join()
    assert seen[0] is not None
    assert seen[1] is None


def test_results_and_errors_come_late_or_never() -> None:
    future: Future[int] = Future()
    with pytest.raises(TimeoutError):
        result_of(future, 0.01)
    with pytest.raises(TimeoutError):
        result_of(future, 0)
    threading.Timer(0.3, future.set_result, [7]).start()
    assert result_of(future) == 7
    failed: Future[int] = Future()
    failed.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        result_of(failed, 5)


def test_a_signal_that_comes_before_the_wait_ends_it() -> None:
    future: Future[int] = Future()
    with interrupted(lambda: True):
        result_of(future)
