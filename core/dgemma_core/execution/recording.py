"""Recordings: an engine's calls of its backend, written to a file and repeated on any other backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dgemma_core.execution.backend import Backend, Slot, Step, StepResult
from dgemma_core.execution.backend_calls import (
    Call,
    Close,
    ForkPrefix,
    Open,
    ReadLabelLogits,
    ReadLogits,
    ReadPredictionLogits,
    Result,
    Run,
    SlotNames,
)
from dgemma_core.execution.recording_format import from_bytes, to_bytes


@dataclass(frozen=True)
class Recording:
    """All calls of one backend, beginning with its first.

    Attributes:
        calls: in order, with their tensors on the host.
        weights: JSON values that say how the weights are made.
    """

    calls: tuple[Call, ...]
    weights: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the recording to a file. The same recording gives the same bytes."""
        path.write_bytes(to_bytes(self.calls, self.weights))

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a recording. Nothing in the file is executed.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file holds no recording.
        """
        content = path.read_bytes()
        try:
            return cls(*from_bytes(content))
        except Exception as error:
            raise ValueError(f"{path} holds no recording ({error!r}): write one with Recording.save") from error


class RecordingBackend:
    """A :class:`~dgemma_core.execution.backend.Backend` that logs the calls of another backend, with their results.

    Calls that raise are not logged, because a repetition overwrites everything that they have changed.

    Args:
        backend: the other backend, which computes.

    Attributes:
        calls: the calls so far.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.calls: list[Call] = []

    def recording(self, weights: dict[str, Any]) -> Recording:
        """The calls so far.

        Args:
            weights: JSON values that say how the weights are made.
        """
        return Recording(tuple(self.calls), weights)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self._backend.vocab_size

    @property
    def on_cpu(self) -> bool:
        """Whether the backend computes on the host's own processor."""
        return self._backend.on_cpu

    def open(self, capacity: int) -> Slot:
        """A new slot."""
        slot = self._backend.open(capacity)
        self.calls.append(Open(capacity, slot))
        return slot

    def close(self, slot: Slot) -> None:
        """Forget a slot."""
        self._backend.close(slot)
        self.calls.append(Close(slot))

    def fork_prefix(self, source: Slot, into: Slot, length: int) -> None:
        """Make the beginning of one slot the beginning of another."""
        self._backend.fork_prefix(source, into, length)
        self.calls.append(ForkPrefix(source, into, length))

    def run(self, step: Step) -> StepResult:
        """Compute one step."""
        result = self._backend.run(step)
        self.calls.append(Run(step, result))
        return result

    def logits(self, slot: Slot, start: int, stop: int, temperature: float) -> Tensor:
        """Logits of canvas positions: float32 ``[stop - start, vocab]`` on the host."""
        result = self._backend.logits(slot, start, stop, temperature)
        # A copy, because the caller may change its tensor.
        self.calls.append(ReadLogits(slot, start, stop, temperature, result.clone()))
        return result

    def label_logits(self, slot: Slot, positions: Sequence[int], labels: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits of a few tokens per position: per position float32 ``[labels]`` on the host."""
        result = self._backend.label_logits(slot, positions, labels)
        kept = tuple(row.clone() for row in result)
        self.calls.append(ReadLabelLogits(slot, tuple(positions), tuple(map(tuple, labels)), kept))
        return result

    def prediction_logits(self, slot: Slot, row: int, apart: bool) -> Tensor:
        """Logits of one prediction: float32 ``[vocab]`` on the host."""
        result = self._backend.prediction_logits(slot, row, apart)
        self.calls.append(ReadPredictionLogits(slot, row, apart, result.clone()))
        return result

    def slot_bytes(self, capacity: int) -> int:
        """Bytes of keys and values of a slot."""
        return self._backend.slot_bytes(capacity)

    def free_unused(self) -> None:
        """Free memory that is only kept for reuse."""
        self._backend.free_unused()


class Replayed(NamedTuple):
    """A recorded call that was repeated.

    Attributes:
        call: the call, with the recording's slots.
        recorded: the result in the recording.
        new: the result of the repetition.
    """

    call: Call
    recorded: Result
    new: Result


@torch.inference_mode()
def replay(recording: Recording, backend: Backend) -> Iterator[Replayed]:
    """Repeat a recording's calls on another backend. Every iteration makes one call.

    Args:
        recording: of any backend with the same weights.
        backend: repeats the calls. Its slots may have other names.
    """
    names: SlotNames = {}
    for call in recording.calls:
        yield Replayed(call, call.result, call.repeat(backend, names))
