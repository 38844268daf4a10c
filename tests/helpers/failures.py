"""Steps that fail on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


class Saboteur:
    """Wraps a step runner's ``forward`` and raises whenever a marked prompt is in the batch."""

    def __init__(self, forward: Any, marked: int, error: Exception, times: int = 10**9, smallest: int = 1) -> None:
        self.forward, self.marked, self.error, self.times, self.smallest = forward, marked, error, times, smallest
        self.batches: list[int] = []

    def __call__(self, work: Sequence[Any]) -> Any:
        self.batches.append(len(work))
        if self.times and len(work) >= self.smallest and any(self.marked in w.sequence.tokens[:3] for w in work):
            self.times -= 1
            raise self.error
        return self.forward(work)


def sabotage(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Saboteur]:
    from dgemma_core.engine.step import StepRunner

    made: list[Saboteur] = []
    original = StepRunner.__init__

    def init(self: Any, *args: Any) -> None:
        original(self, *args)
        made.append(Saboteur(self.forward, **options))
        self.forward = made[-1]

    monkeypatch.setattr(StepRunner, "__init__", init)
    return made
