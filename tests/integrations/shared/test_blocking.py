"""Coroutines for callers that block."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import warnings
from collections.abc import AsyncGenerator

import pytest

from dgemma_integrations.shared import blocking
from dgemma_integrations.shared.blocking import iterate_blocking, run_blocking
from tests.helpers.interrupts import interrupted
from tests.helpers.waiting import wait_for

NAME = contextvars.ContextVar("name", default="")


async def numbers(count: int, ended: threading.Event) -> AsyncGenerator[int]:
    try:
        for number in range(count):
            yield number
            await asyncio.sleep(0)
        if count > 2:
            raise ZeroDivisionError
    finally:
        ended.set()


def test_results_errors_and_the_callers_context() -> None:
    async def name() -> str:
        return NAME.get()

    async def fail() -> None:
        raise ZeroDivisionError

    NAME.set("caller")
    assert run_blocking(name()) == "caller"
    with pytest.raises(ZeroDivisionError):
        run_blocking(fail())


def test_items_come_before_the_error() -> None:
    ended = threading.Event()
    assert list(iterate_blocking(numbers(2, ended))) == [0, 1]
    items = iterate_blocking(numbers(3, ended))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(items)
    assert ended.is_set()


def test_leaving_early_cancels_the_work() -> None:
    ended = threading.Event()

    async def endless() -> AsyncGenerator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            ended.set()

    items = iterate_blocking(endless())
    assert next(items) == 1
    items.close()
    wait_for(ended.is_set)


def test_an_interrupt_cancels_the_work() -> None:
    began, ended = threading.Event(), threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with interrupted(began.is_set):
        run_blocking(work())
    assert ended.is_set()


def test_work_that_was_never_begun_is_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None: ...

    def start(_thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(blocking._LoopThread, "start", start)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyboardInterrupt):
            run_blocking(work())
