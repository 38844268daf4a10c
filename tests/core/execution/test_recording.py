"""Recordings: what they keep, their files, and calls made again under other names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgemma_core.execution.backend import (
    Backend,
    CanvasSegment,
    EncodeSegment,
    ImageInput,
    PrefixCopy,
    Slot,
    Step,
    StepResult,
)
from dgemma_core.execution.backend_calls import Open, Run
from dgemma_core.execution.eager import EagerBackend
from dgemma_core.execution.recording import Recording, RecordingBackend, replay
from tests.checkpoints import make_model
from tests.core.execution.replaying import check_equal, same


@pytest.fixture(scope="module")
def eager() -> EagerBackend:
    return EagerBackend(make_model())


def canvas(slot: Slot, start: int, **changes: object) -> CanvasSegment:
    generator = torch.Generator().manual_seed(slot + start)
    first = CanvasSegment(
        slot=slot,
        start=start,
        length=8,
        tokens=torch.randint(512, (8,), generator=generator),
        pinned=torch.zeros(8, dtype=torch.bool),
        unconditioned=torch.ones(8, dtype=torch.bool),
        uniform=torch.rand(8, generator=generator),
        temperature=0.7,
    )
    return replace(first, **changes)  # type: ignore[arg-type]


@torch.inference_mode()
def use(backend: Backend) -> None:
    """Every call of the protocol that changes or reads a slot."""
    a, b = backend.open(24), backend.open(24)
    prompt = torch.arange(30, 40)
    backend.run(
        Step(
            encode=(EncodeSegment(a, 0, prompt), EncodeSegment(b, 6, prompt[6:])),
            canvases=(canvas(a, 10, guided=True), canvas(b, 10, guided=True, reads=(1, 5))),
            copies=(PrefixCopy(b, a, 0, 6),),
        )
    )
    backend.logits(a, 2, 4, 0.5)
    backend.label_logits(b, [1, 5], [[40, 41], [42]])
    c = backend.open(24)
    backend.close(b)
    backend.fork_prefix(a, c, 10)
    backend.run(Step(canvases=(canvas(c, 10),)))


def test_calls_are_made_again_on_slots_of_other_names(eager: EagerBackend) -> None:
    recorder = RecordingBackend(eager)
    use(recorder)
    eager.open(8)
    seen = list(replay(recorder.recording({}), eager))
    assert len(seen) == 9
    for replayed in seen:
        check_equal(replayed)
    opened = [(replayed.recorded, replayed.new) for replayed in seen if isinstance(replayed.call, Open)]
    assert len(opened) == 3
    assert all(recorded != new for recorded, new in opened)


def test_what_a_caller_changes_is_recorded_as_it_was(eager: EagerBackend) -> None:
    recorder = RecordingBackend(eager)
    with torch.inference_mode():
        slot = recorder.open(24)
        recorder.run(Step((EncodeSegment(slot, 0, torch.arange(30, 40)),), (canvas(slot, 10, guided=True),)))
        recorder.logits(slot, 0, 2, 1.0).fill_(0.0)
        recorder.label_logits(slot, [3], [[4, 5]])[0].fill_(0.0)
    for replayed in replay(recorder.recording({}), eager):
        check_equal(replayed)


def test_calls_that_raise_are_not_recorded(eager: EagerBackend) -> None:
    recorder = RecordingBackend(eager)
    with pytest.raises(ValueError, match="slot=99"):
        recorder.run(Step(canvases=(canvas(99, 0),)))
    with pytest.raises(ValueError, match="slot=99"):
        recorder.close(99)
    assert recorder.calls == []


def test_a_file_holds_the_whole_recording(eager: EagerBackend, tmp_path: Path) -> None:
    recorder = RecordingBackend(eager)
    use(recorder)
    image = ImageInput(3, 2, torch.rand(18, 48), torch.arange(36).view(18, 2))
    pictured = Run(Step((EncodeSegment(0, 0, torch.arange(9), (image,)),)), StepResult((None,)))
    recording = Recording((*recorder.calls, pictured), {"seed": 0, "layers": ["full_attention"]})
    recording.save(tmp_path / "steps")
    loaded = Recording.load(tmp_path / "steps")
    assert loaded.weights == recording.weights
    assert same(loaded, recording)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "steps").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no recording", b"\x1f\x8b\x08\x00"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "steps"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="steps holds no recording"):
        Recording.load(path)
    with pytest.raises(FileNotFoundError):
        Recording.load(tmp_path / "missing")
