"""Runs coroutines side by side, and runs coroutines for callers without an event loop of their own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines side by side. Returns their results in order; the first error cancels the others."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from any thread, also from one whose event loop is running.

    LlamaIndex's own ``asyncio_run`` takes every ``RuntimeError`` for a problem with event loops. It replaces the error
    with a hint about nested loops, which hides the real cause.
    """

    def run() -> T:
        # With a factory, the runner does not change the thread's current event loop.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    context = contextvars.copy_context()
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(context.run, run).result()
