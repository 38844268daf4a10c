"""Ctrl-C in the tests' own process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.helpers.waiting import wait_for

# Seconds from the signal to the exception. A test's work takes longer if nothing interrupts it.
SOON = 4.0


@contextmanager
def interrupted(when: Callable[[], bool]) -> Iterator[None]:
    """Sends a real SIGINT as soon as ``when`` is true. The block must end with a ``KeyboardInterrupt`` soon after."""
    sent: list[float] = []

    inside = threading.Event()

    def press() -> None:
        inside.wait()
        wait_for(when)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        presser.start()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 -- the block is the caller's
            inside.set()
            yield
        ended = time.monotonic()
    finally:
        # A signal that comes too late must not end the tests.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        presser.join()
        signal.signal(signal.SIGINT, before)
    assert ended - sent[0] < SOON
