"""The process's engines, one per spec. Only this module of the adapters makes engines."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.protocol import Engine

if TYPE_CHECKING:
    from dgemma_core import Engine as LocalEngine

# One reference per spec, held until release(): weights must outlive model objects, which frameworks make per request.
_engines: dict[LoadSpec, Engine] = {}
_lock = threading.Lock()
_engine_imported = False


def engine_for(spec: LoadSpec) -> Engine:
    """The process's engine for this spec. Loads nothing.

    The first call for a spec takes one reference, which is kept until :func:`release`. If somebody has closed the
    engine, a new one replaces it.
    """
    engine_class = _engine_class()
    with _lock:
        engine = _engines.get(spec)
        if engine is None or engine.closed:
            engine = _engines[spec] = engine_class.shared(spec)
        return engine


async def aengine_for(spec: LoadSpec) -> Engine:
    """:func:`engine_for` without blocking the event loop. The first use in a process imports torch for seconds."""
    if not _engine_imported:
        await asyncio.to_thread(_engine_class)
    return engine_for(spec)


def release(spec: LoadSpec) -> None:
    """Give the process's reference for this spec back. Does nothing if none is held."""
    with _lock:
        engine = _engines.pop(spec, None)
    # Closed without the lock, because closing the last reference waits for the worker thread.
    if engine is not None:
        engine.close()


def _engine_class() -> type[LocalEngine]:
    global _engine_imported
    from dgemma_core import Engine as LocalEngine

    _engine_imported = True
    return LocalEngine
