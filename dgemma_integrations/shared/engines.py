"""The process's engines: one per spec, made here and nowhere else in the adapters."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from dgemma_core.api.protocol import Engine
from dgemma_core.api.spec import LoadSpec

if TYPE_CHECKING:
    from dgemma_core import Engine as LocalEngine

# One reference per spec, held until release(): frameworks build model objects per request, weights must outlive them.
_engines: dict[LoadSpec, Engine] = {}
_lock = threading.Lock()
_engine_imported = False


def engine_for(spec: LoadSpec) -> Engine:
    """The process's engine for this spec; loads nothing by itself.

    The first call for a spec takes one reference that is kept until :func:`release`. An engine that somebody closed is
    replaced by a new one.
    """
    engine_class = _engine_class()
    with _lock:
        engine = _engines.get(spec)
        if engine is None or engine.closed:
            engine = _engines[spec] = engine_class.shared(spec)
        return engine


async def aengine_for(spec: LoadSpec) -> Engine:
    """:func:`engine_for` for a running event loop: the first use in a process imports torch, which takes seconds."""
    if not _engine_imported:
        await asyncio.to_thread(_engine_class)
    return engine_for(spec)


def release(spec: LoadSpec) -> None:
    """Gives the process's reference for this spec back; does nothing where none is held."""
    with _lock:
        engine = _engines.pop(spec, None)
    # Outside the lock: closing the last reference waits for the worker thread.
    if engine is not None:
        engine.close()


def _engine_class() -> type[LocalEngine]:
    global _engine_imported
    from dgemma_core import Engine as LocalEngine

    _engine_imported = True
    return LocalEngine
