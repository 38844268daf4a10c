"""Recorded steps: all kinds occur in them, and the eager backend computes them again."""

from __future__ import annotations

from collections import Counter

import pytest

from dgemma_core.execution.backend_calls import Run
from dgemma_core.execution.eager import EagerBackend
from dgemma_core.execution.recording import replay
from tests.core.execution.record_steps import FOLDER, SCENARIOS, file_of, record
from tests.core.execution.replaying import check_close, check_equal, committed, model_of
from tests.core.execution.step_kinds import KINDS, count_kinds

EVERY_RECORDING = pytest.mark.parametrize("name", SCENARIOS)


def test_every_kind_of_step_is_recorded() -> None:
    counts = sum((count_kinds(committed(name)) for name in SCENARIOS), Counter[str]())
    assert set(counts) == KINDS


def test_the_files_are_those_of_the_scenarios_and_small() -> None:
    files = set(FOLDER.iterdir())
    assert files == {file_of(name) for name in SCENARIOS}
    assert sum(file.stat().st_size for file in files) < 300_000


def test_recorded_distributions_are_neither_flat_nor_points() -> None:
    """Where all entropies were near 0, a backend could be wrong and yet agree."""
    runs = [call for name in SCENARIOS for call in committed(name).calls if isinstance(call, Run)]
    entropies = [x for run in runs for canvas in run.result.canvases if canvas for x in canvas.entropy.tolist()]
    assert sum(0.01 < entropy < 3 for entropy in entropies) > len(entropies) / 3


@EVERY_RECORDING
def test_the_committed_steps_replay(name: str) -> None:
    recording = committed(name)
    for replayed in replay(recording, EagerBackend(model_of(recording))):
        check_close(replayed)


@EVERY_RECORDING
def test_steps_recorded_now_replay_bit_for_bit(name: str) -> None:
    recording = record(name)
    for replayed in replay(recording, EagerBackend(model_of(recording))):
        check_equal(replayed)
    assert sum(isinstance(call, Run) for call in recording.calls) > 1
