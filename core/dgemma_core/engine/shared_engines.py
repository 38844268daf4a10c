"""The engines of this process. Shares them by spec, and cares for all of them at a fork and at exit."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Any, Generic, Protocol, TypeVar

from dgemma_core.api.aside import killable_exit
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.engine.checkpoint_parts import CheckpointParts
from dgemma_core.engine.worker import Worker

# Workers, not engines: a worker's thread may still run when its engine is already gone.
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_parts: weakref.WeakSet[CheckpointParts] = weakref.WeakSet()


class _Closable(Protocol):
    @property
    def closed(self) -> bool: ...


T = TypeVar("T", bound=_Closable)


class SharedEngines(Generic[T]):
    """One engine per spec, with a reference count."""

    def __init__(self) -> None:
        self._engines: dict[LoadSpec, T] = {}
        self._references: weakref.WeakKeyDictionary[T, int] = weakref.WeakKeyDictionary()
        self.renew_locks()
        _shared.add(self)

    def renew_locks(self) -> None:
        """In a forked child: make a new lock. The old one may be held by a thread that exists in the parent only."""
        self._lock = threading.Lock()

    def take(self, spec: LoadSpec, made: type[T]) -> T:
        """Take a reference to the engine of a spec. It is made by ``made(spec)`` if there is no open one."""
        with self._lock:
            engine = self._engines.get(spec)
            if engine is None or engine.closed:
                engine = self._engines[spec] = made(spec)  # type: ignore[call-arg]
            self._references[engine] = self._references.get(engine, 0) + 1
            return engine

    def give_back(self, spec: LoadSpec, engine: T) -> bool:
        """Give a reference back.

        Returns:
            Whether it was the last one, or the engine was never shared.
        """
        with self._lock:
            left = self._references.get(engine, 0) - 1
            if left > 0:
                self._references[engine] = left
                return False
            self._references.pop(engine, None)
            if self._engines.get(spec) is engine:
                del self._engines[spec]
            return True


_shared: weakref.WeakSet[SharedEngines[Any]] = weakref.WeakSet()


def register(worker: Worker, parts: CheckpointParts) -> None:
    """Note a worker to close at exit. In a forked child, worker and parts get new locks."""
    _workers.add(worker)
    _parts.add(parts)


def _close_all() -> None:
    # A daemon thread that runs torch while the interpreter shuts down can crash the process.
    with killable_exit():
        for worker in list(_workers):
            worker.close()


def _after_fork() -> None:
    for shared in list(_shared):
        shared.renew_locks()
    for parts in list(_parts):
        parts.renew_locks()
    for worker in list(_workers):
        worker.after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
