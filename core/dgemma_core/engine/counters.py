"""The engine's counters, for callers on any thread."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from dgemma_core.api.usage import EngineStats


class Counters:
    """Counts what the engine has done.

    Args:
        lock: held while they change, so that a caller who holds it sees them together with other state.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock
        self._stats = EngineStats()

    def add(self, **more: float) -> None:
        """Increase counters by their names in ``EngineStats``."""
        with self.lock:
            changes: dict[str, Any] = {name: getattr(self._stats, name) + value for name, value in more.items()}
            self._stats = replace(self._stats, **changes)

    def raise_to(self, **highest: int) -> None:
        """Keep the highest value seen of counters such as ``max_batch``."""
        with self.lock:
            changes: dict[str, Any] = {n: value for n, value in highest.items() if value > getattr(self._stats, n)}
            if changes:
                self._stats = replace(self._stats, **changes)

    def snapshot(self, **now: int) -> EngineStats:
        """The counters, with values of this moment filled in."""
        with self.lock:
            return replace(self._stats, **now)
