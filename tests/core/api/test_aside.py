"""Work that Ctrl-C does not tear."""

from __future__ import annotations

import contextvars
import threading

import pytest

from dgemma_core.api.aside import call_aside
from tests.helpers.interrupts import interrupted
from tests.helpers.waiting import wait_for


def test_interrupted_work_goes_on() -> None:
    began, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert go.wait(10)
        done.set()

    with interrupted(began.is_set):
        call_aside(work)
    assert not done.is_set()
    go.set()
    wait_for(done.is_set)


def test_the_result_comes_back() -> None:
    assert call_aside(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_aside(lambda: 1 // 0)


def test_work_sees_the_callers_context() -> None:
    name = contextvars.ContextVar("name", default="")
    name.set("caller")
    assert call_aside(name.get) == "caller"


def test_threads_do_their_own_work() -> None:
    """Nothing interrupts them."""
    ran: list[threading.Thread] = []

    def ask() -> None:
        call_aside(lambda: ran.append(threading.current_thread()))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert ran == [thread]
