"""Steps that fail on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


class Saboteur:
    """Wraps a runner's ``run`` and raises whenever a marked prompt is in the batch."""

    def __init__(self, run: Any, marked: int, error: Exception, times: int = 10**9, smallest: int = 1) -> None:
        self.run, self.marked, self.error, self.times, self.smallest = run, marked, error, times, smallest
        self.batches: list[int] = []

    def __call__(self, work: Sequence[Any]) -> Any:
        self.batches.append(len(work))
        if self.times and len(work) >= self.smallest and any(self.marked in w.sequence.tokens[:3] for w in work):
            self.times -= 1
            raise self.error
        return self.run(work)


def sabotage(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Saboteur]:
    from dgemma_core.execution.eager import ModelRunner

    made: list[Saboteur] = []
    original = ModelRunner.__init__

    def init(self: Any, *args: Any) -> None:
        original(self, *args)
        made.append(Saboteur(self.run, **options))
        self.run = made[-1]

    monkeypatch.setattr(ModelRunner, "__init__", init)
    return made
