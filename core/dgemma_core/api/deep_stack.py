"""Calls with a stack large enough for llguidance, which follows rules in rules by recursion.

A few thousand rules, each in the one before, would overflow the stack of a thread, and the process would end. The
objects of a large schema make chains of this length.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from dgemma_core.api.patience import result_of

T = TypeVar("T")

# A grammar of so many characters has too few rules to fill half a megabyte, the smallest stack that systems give a
# thread: a rule has at least eight characters, and takes three kilobytes.
_SHORT = 1_000
# Bytes. They are addresses: only what is used takes memory.
_PER_CHARACTER = 512
_SMALLEST, _LARGEST = 16 << 20, 1 << 30
_changing = threading.Lock()


def with_deep_stack(work: Callable[[], T], length: int) -> T:
    """Call ``work``, on a thread with a large stack if a grammar is long.

    Args:
        work: compiles the grammar.
        length: characters of the grammar.

    Raises:
        BaseException: whatever ``work`` raises.
    """
    if length <= _SHORT:
        return work()
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="dgemma-grammar", daemon=True)
    with _changing:
        before = threading.stack_size(min(max(length * _PER_CHARACTER >> 12 << 12, _SMALLEST), _LARGEST))
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return result_of(outcome)
