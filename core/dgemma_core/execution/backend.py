"""The seam between the engine and whatever computes: a step as plain data, its result, and the backend's interface.

A step names no request, no handle and no guide, so it can be written to a file and replayed on any backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Slot = int
"""Names one sequence's state in a backend: its keys and values, soft embeddings and hidden states."""


@dataclass(frozen=True)
class ImageInput:
    """An image of a prompt, ready for the vision tower.

    Attributes:
        start: position of its first image token in the sequence.
        length: its image tokens.
        patches: float32 ``[patches, patch pixels]`` on the host.
        positions: int64 ``[patches, 2]`` on the host, column and row of each patch.
    """

    start: int
    length: int
    patches: Tensor
    positions: Tensor

    @property
    def stop(self) -> int:
        """Position after its last image token."""
        return self.start + self.length


@dataclass(frozen=True)
class EncodeSegment:
    """Tokens to encode causally: a prompt chunk, or a finished canvas that is committed.

    Attributes:
        slot: whose state.
        start: position of the first token.
        tokens: int64 ``[n]`` on the host, at least one.
        images: those whose tokens lie among them, each whole.
    """

    slot: Slot
    start: int
    tokens: Tensor
    images: tuple[ImageInput, ...] = ()


@dataclass(frozen=True)
class CanvasSegment:
    """One denoising step of one canvas. All tensors are on the host; ``active`` positions of the canvas are computed.

    Attributes:
        slot: whose state.
        start: position of the canvas's first token in the sequence.
        length: positions of the whole canvas. Those from ``active`` on are frozen: attended to as the last step that
            computed them left them.
        tokens: int64 ``[active]``.
        pinned: bool ``[active]``, positions whose self-conditioning is their own token's embedding.
        unconditioned: bool ``[active]``, positions without self-conditioning, unless they are pinned. All others are
            conditioned on the distribution that the last step gave them.
        uniform: float32 ``[active]`` in [0, 1), the draws that samples are taken with.
        temperature: what logits are divided by.
        reads: canvas positions that are read by a guide, where that is all that is wanted: no statistics are computed,
            and hidden states of these positions only. No distribution is kept then to condition a later step on. None
            for a canvas that is denoised.
        guided: whether :meth:`Backend.logits` and :meth:`Backend.label_logits` may be asked of this step.
    """

    slot: Slot
    start: int
    length: int
    tokens: Tensor
    pinned: Tensor
    unconditioned: Tensor
    uniform: Tensor
    temperature: float
    reads: tuple[int, ...] | None = None
    guided: bool = False

    @property
    def active(self) -> int:
        """Positions that are computed."""
        return len(self.tokens)


@dataclass(frozen=True)
class PrefixCopy:
    """Positions ``[start, stop)`` of one slot, taken over from another in the same pass, once that one has them.

    Both slots hold the same tokens and images up to ``stop``.
    """

    into: Slot
    source: Slot
    start: int
    stop: int


@dataclass(frozen=True)
class Step:
    """One forward pass, of at least one encoded token or one canvas.

    Attributes:
        encode: what is encoded. A canvas of the same slot may follow in the same step.
        canvases: canvases that take a denoising step.
        copies: keys and values taken over between slots, in an order in which each has its source.
    """

    encode: tuple[EncodeSegment, ...] = ()
    canvases: tuple[CanvasSegment, ...] = ()
    copies: tuple[PrefixCopy, ...] = ()


@dataclass(frozen=True)
class CanvasResult:
    """What one denoising step says about a canvas's computed positions. All on the host.

    Attributes:
        argmax: int64 ``[active]``, the likeliest token.
        sample: int64 ``[active]``, a token drawn from the distribution: the first, by token ids, up to which the
            probabilities sum to more than the position's ``uniform``.
        entropy: float32 ``[active]``, nats.
    """

    argmax: Tensor
    sample: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class StepResult:
    """What the host needs to know of a step.

    Attributes:
        canvases: one entry per canvas segment; None where a guide only reads.
    """

    canvases: tuple[CanvasResult | None, ...] = ()


class Backend(Protocol):
    """Weights, and the state of sequences in slots. For one thread only: the engine's worker.

    Methods are called in torch's inference mode. Those that take a slot raise ``ValueError`` for one that is not open.
    """

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding; noise is drawn from all of them."""

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the host's own processor."""

    def open(self, capacity: int) -> Slot:
        """A new slot with room for ``capacity`` tokens, prompt, answer and canvas together.

        Raises:
            Exception: one that ``is_out_of_memory`` knows, where there is no room; nothing is held then.
        """

    def close(self, slot: Slot) -> None:
        """Forget a slot and free its memory."""

    def fork_prefix(self, source: Slot, into: Slot, length: int) -> None:
        """Let ``into`` begin with the first ``length`` positions of ``source``, whose keys and values are final."""

    def run(self, step: Step) -> StepResult:
        """Compute one step.

        A run that fails changes nothing that a repetition would not write again, so the same step, or parts of it, may
        be run again.
        """

    def logits(self, slot: Slot, start: int, stop: int, temperature: float) -> Tensor:
        """Soft-capped logits divided by ``temperature``, of canvas positions ``[start, stop)`` after a guided step.

        Returns:
            float32 ``[stop - start, vocab]`` on the host.
        """

    def label_logits(self, slot: Slot, positions: Sequence[int], labels: Sequence[Sequence[int]]) -> list[Tensor]:
        """Soft-capped logits of a few tokens each, not divided by a temperature, after a guided step.

        Args:
            slot: whose canvas.
            positions: canvas positions.
            labels: for each of them the token ids asked for.

        Returns:
            For each position float32 ``[labels]`` on the host.
        """

    def slot_bytes(self, capacity: int) -> int:
        """Bytes of keys and values that a slot of this capacity takes."""

    def free_unused(self) -> None:
        """Give memory back that is held for reuse only."""
