"""The engine's counters, for callers on any thread."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from dgemma_core.api.usage import EngineStats


class Counters:
    """The engine's counters.

    Args:
        lock: held while counters change. Who holds it sees the counters agree with other state under the same lock.
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
        """Raise counters that keep a maximum, like ``max_batch``, if the new value is higher."""
        with self.lock:
            changes: dict[str, Any] = {n: value for n, value in highest.items() if value > getattr(self._stats, n)}
            if changes:
                self._stats = replace(self._stats, **changes)

    def snapshot(self, **now: int) -> EngineStats:
        """The counters, with current values (``now``) by their names in ``EngineStats``."""
        with self.lock:
            return replace(self._stats, **now)
