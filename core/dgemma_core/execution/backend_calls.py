"""Calls of a backend as plain data. A call can be written to a file and repeated on another backend."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from dgemma_core.execution.backend import Backend, Slot, Step, StepResult

SlotNames = dict[Slot, Slot]
"""Slots of a recording -> slots of the backend that repeats its calls."""


@dataclass(frozen=True)
class Open:
    """``open(capacity)``. The result is the new slot."""

    capacity: int
    result: Slot

    def repeat(self, backend: Backend, names: SlotNames) -> Slot:
        """Open a slot, and note its name."""
        names[self.result] = backend.open(self.capacity)
        return names[self.result]


@dataclass(frozen=True)
class Close:
    """``close(slot)``."""

    slot: Slot
    result: None = None

    def repeat(self, backend: Backend, names: SlotNames) -> None:
        """Close the slot, and forget its name."""
        backend.close(names.pop(self.slot))


@dataclass(frozen=True)
class ForkPrefix:
    """``fork_prefix(source, into, length)``."""

    source: Slot
    into: Slot
    length: int
    result: None = None

    def repeat(self, backend: Backend, names: SlotNames) -> None:
        """Fork the same prefix."""
        backend.fork_prefix(names[self.source], names[self.into], self.length)


@dataclass(frozen=True)
class Run:
    """``run(step)``."""

    step: Step
    result: StepResult

    def repeat(self, backend: Backend, names: SlotNames) -> StepResult:
        """Run the same step."""
        return backend.run(renamed(self.step, names))


@dataclass(frozen=True)
class ReadLogits:
    """``logits(slot, start, stop, temperature)``. The result is float32 ``[stop - start, vocab]``."""

    slot: Slot
    start: int
    stop: int
    temperature: float
    result: Tensor

    def repeat(self, backend: Backend, names: SlotNames) -> Tensor:
        """Read the same rows."""
        return backend.logits(names[self.slot], self.start, self.stop, self.temperature)


@dataclass(frozen=True)
class ReadLabelLogits:
    """``label_logits(slot, positions, labels)``. The result is float32 ``[labels]`` for each position."""

    slot: Slot
    positions: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    result: tuple[Tensor, ...]

    def repeat(self, backend: Backend, names: SlotNames) -> tuple[Tensor, ...]:
        """Read the same logits."""
        return tuple(backend.label_logits(names[self.slot], self.positions, self.labels))


@dataclass(frozen=True)
class ReadPredictionLogits:
    """``prediction_logits(slot, row, apart)``. The result is float32 ``[vocab]``."""

    slot: Slot
    row: int
    apart: bool
    result: Tensor

    def repeat(self, backend: Backend, names: SlotNames) -> Tensor:
        """Read the same row."""
        return backend.prediction_logits(names[self.slot], self.row, self.apart)


Call = Open | Close | ForkPrefix | Run | ReadLogits | ReadLabelLogits | ReadPredictionLogits
"""One call and its result."""

Result = Slot | StepResult | Tensor | tuple[Tensor, ...] | None
"""The result of a call."""


def renamed(step: Step, names: SlotNames) -> Step:
    """The same step with other slots."""
    return Step(
        encode=tuple(replace(segment, slot=names[segment.slot]) for segment in step.encode),
        canvases=tuple(replace(canvas, slot=names[canvas.slot]) for canvas in step.canvases),
        copies=tuple(replace(c, into=names[c.into], source=names[c.source]) for c in step.copies),
    )
