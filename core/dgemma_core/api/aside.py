"""Work on a thread of its own, so that Ctrl-C ends the caller's wait and never the work.

Python raises ``KeyboardInterrupt`` in the main thread, between any two instructions. An import of torch that is left in
the middle cannot be repeated in the same process.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 -- it cannot be imported any more while the interpreter exits
import contextvars
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from dgemma_core.api.patience import result_of

T = TypeVar("T")

_threads: set[threading.Thread] = set()


def call_aside(work: Callable[[], T]) -> T:
    """Call ``work`` and return its result. After a Ctrl-C the work goes on, and a later call may find it done.

    Args:
        work: must be safe to call again while an earlier call is still under way.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed while the main thread waited.
        BaseException: whatever ``work`` raises.
    """
    # Other threads are never interrupted.
    if threading.current_thread() is not threading.main_thread() or _imports_torch():
        return work()
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(work))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            _threads.discard(thread)

    thread = threading.Thread(target=run, name="dgemma-aside", daemon=True)
    _threads.add(thread)
    thread.start()
    return result_of(outcome)


def import_aside(*names: str) -> None:
    """Import modules. Ctrl-C does not tear it.

    Args:
        names: of modules that do not import the caller's.
    """
    if not all(map(_is_imported, names)):
        call_aside(lambda: [importlib.import_module(name) for name in names])


@contextmanager
def killable_exit() -> Iterator[None]:
    """While the interpreter exits: let Ctrl-C end the process at once, without a traceback."""
    try:
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # Not the main thread.
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_imported(name: str) -> bool:
    return name in sys.modules and not _is_being_imported(name)


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _imports_torch() -> bool:
    """Whether the caller runs inside an import of torch, for example as its plug-in. A thread could not import it."""
    return _is_being_imported("torch") and not _threads


def _wait_for_all() -> None:
    # A thread that is inside torch while the interpreter shuts down can crash the process.
    with killable_exit():
        for thread in list(_threads):
            if thread.is_alive():
                thread.join()


# Before the functions of atexit, because what is imported meanwhile registers some, too.
getattr(threading, "_register_atexit", atexit.register)(_wait_for_all)
# The standard library's asyncio cannot be imported again either after an import that was left in the middle.
import_aside("asyncio")
