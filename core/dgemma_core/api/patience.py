"""Waits that Ctrl-C always ends.

A signal that comes just before the main thread blocks on a lock does not wake it: Python notices the signal only when
the wait is over. On Windows no signal wakes it. So the main thread waits for a short time only, again and again.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

# Seconds.
_SHORT = 0.2


def patience() -> float | None:
    """Seconds for which the calling thread may block at a time; None if it may block for ever."""
    return _SHORT if threading.current_thread() is threading.main_thread() else None


def result_of(future: Future[T], timeout: float | None = None) -> T:
    """``future.result(timeout)``, which Ctrl-C always ends."""
    short = patience()
    if short is not None:
        until = None if timeout is None else time.monotonic() + timeout
        while not future.done():
            left = short if until is None else until - time.monotonic()
            if left <= 0:
                break
            wait([future], min(short, left))
        timeout = 0
    return future.result(timeout)
