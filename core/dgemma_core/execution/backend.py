"""The interface between the engine and a backend: a step as plain data, its result, and the backend's methods.

A step names no request, no handle and no guide, so it can be written to a file and replayed on any backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dgemma_core.denoise.sampling_rule import GREEDY, SamplingRule

Slot = int
"""Names one sequence's state in a backend: its keys and values, soft embeddings and hidden states."""


@dataclass(frozen=True)
class ImageInput:
    """An image of a prompt, ready for the vision tower.

    Attributes:
        start: position of its first image token in the sequence.
        length: number of its image tokens.
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
class Predict:
    """What to predict by the causal mode: the token after each of a segment's last ``rows`` tokens.

    Attributes:
        uniform: float32 ``[rows]`` in [0, 1) on the host, random draws, one per prediction.
        rule: how a token is chosen from its distribution.
        allowed: bool ``[rows, vocab]`` on the host, the tokens that may be chosen; at least one in every row. None for
            all.
        banned: token ids that are never chosen.
        logprobs: alternatives whose log-probabilities are wanted, beside the chosen token's; None for no
            log-probabilities.
        kept: whether :meth:`Backend.prediction_logits` may be called after this step.
    """

    uniform: Tensor
    rule: SamplingRule = GREEDY
    allowed: Tensor | None = None
    banned: tuple[int, ...] = ()
    logprobs: int | None = None
    kept: bool = False

    @property
    def rows(self) -> int:
        """Number of predictions."""
        return len(self.uniform)


@dataclass(frozen=True)
class EncodeSegment:
    """Tokens to encode causally: a prompt chunk, a finished canvas that is committed, or a draft to verify.

    A step may hold two segments of one slot that begin at the same position: two drafts of the same text. One of them
    is ``apart``. It may also hold a canvas of the slot that begins there. None of the three sees another.

    Attributes:
        slot: of the sequence.
        start: position of the first token in the sequence.
        tokens: int64 ``[n]`` on the host, at least one.
        images: the images among the tokens. None is split between segments.
        predict: what to predict after the last tokens; None for nothing.
        apart: whether the slot keeps the keys and values apart. They are lost unless the slot's next segment adopts
            them.
        adopt: tokens before ``start`` whose keys and values the slot takes over from those that the last step has kept
            apart.
    """

    slot: Slot
    start: int
    tokens: Tensor
    images: tuple[ImageInput, ...] = ()
    predict: Predict | None = None
    apart: bool = False
    adopt: int = 0


@dataclass(frozen=True)
class CanvasSegment:
    """One denoising step of one canvas. All tensors are on the host; ``active`` positions of the canvas are computed.

    Attributes:
        slot: of the sequence.
        start: position of the canvas's first token in the sequence.
        length: positions of the whole canvas. Those from ``active`` on are frozen: the step attends to the keys and
            values that an earlier step has written for them.
        tokens: int64 ``[active]``.
        pinned: bool ``[active]``, positions whose self-conditioning is their own token's embedding.
        unconditioned: bool ``[active]``, positions without self-conditioning, unless they are pinned. All others are
            conditioned on the distribution that the last step gave them.
        uniform: float32 ``[active]`` in [0, 1), random draws, one per sample.
        temperature: divisor of the logits.
        reads: the positions whose hidden states a guide reads, if the canvas is only read. The step then computes no
            statistics, and keeps no distribution to condition a later step. None for a canvas that is denoised.
        guided: whether :meth:`Backend.logits` and :meth:`Backend.label_logits` may be called after this step.
        shift: positions that the canvas has moved since its last step. The distribution of position ``i`` is the one
            that the last step gave to position ``i + shift``; the last ``shift`` positions must be unconditioned.
        banned: token ids with probability 0 at every position. :meth:`Backend.logits` does not know of them.
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
    shift: int = 0
    banned: tuple[int, ...] = ()

    @property
    def active(self) -> int:
        """Positions that are computed."""
        return len(self.tokens)


@dataclass(frozen=True)
class PrefixCopy:
    """A copy of keys and values between two slots, in the pass that computes them.

    Attributes:
        into: the slot that receives them.
        source: the other slot. It has the same tokens and images up to ``stop``.
        start: first position.
        stop: position after the last.
    """

    into: Slot
    source: Slot
    start: int
    stop: int


@dataclass(frozen=True)
class Step:
    """One forward pass, of at least one encoded token or one canvas.

    Attributes:
        encode: segments to encode. The same step may hold a canvas of the same slot.
        canvases: canvases that take a denoising step.
        copies: keys and values to copy between slots. A copy comes after the copies that fill its source.
    """

    encode: tuple[EncodeSegment, ...] = ()
    canvases: tuple[CanvasSegment, ...] = ()
    copies: tuple[PrefixCopy, ...] = ()


@dataclass(frozen=True)
class CanvasResult:
    """The result of one denoising step for a canvas's computed positions. All tensors are on the host.

    Attributes:
        argmax: int64 ``[active]``, the likeliest token.
        sample: int64 ``[active]``, a token drawn from the distribution. It is the first token id up to which the
            probabilities sum to more than the position's ``uniform``.
        entropy: float32 ``[active]``, nats.
    """

    argmax: Tensor
    sample: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Logprobs:
    """Log-probabilities of predictions, on the host: of the soft-capped logits, at temperature 1, over all tokens.

    Attributes:
        chosen: float32 ``[rows]`` nats, of the predicted tokens.
        top_tokens: int64 ``[rows, alternatives]``, the likeliest tokens, in order.
        top: float32 ``[rows, alternatives]`` nats, theirs.
    """

    chosen: Tensor
    top_tokens: Tensor
    top: Tensor


@dataclass(frozen=True)
class Prediction:
    """The predicted tokens of one encoded segment, on the host.

    Attributes:
        tokens: int64 ``[rows]``.
        logprobs: None unless they were asked for.
    """

    tokens: Tensor
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class StepResult:
    """The result of a step.

    Attributes:
        canvases: one entry per canvas segment; None for a canvas that a guide only reads.
        predictions: one entry per encoded segment that predicts.
    """

    canvases: tuple[CanvasResult | None, ...] = ()
    predictions: tuple[Prediction, ...] = ()


class Backend(Protocol):
    """Weights, and the state of sequences in slots. Only the engine's worker thread calls it.

    Methods are called in torch's inference mode. A method that takes a slot raises ``ValueError`` if it is not open.
    """

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding; noise is drawn from all of them."""

    @property
    def on_cpu(self) -> bool:
        """Whether the backend computes on the host's own processor."""

    def open(self, capacity: int) -> Slot:
        """A new slot with room for ``capacity`` tokens: prompt, answer, and what stands after them in a step.

        That is a canvas, and a draft that is kept apart. Each may begin at the next multiple of 16.

        Raises:
            Exception: memory ran out; ``errors.is_out_of_memory`` recognises it. Nothing is allocated then.
        """

    def close(self, slot: Slot) -> None:
        """Forget a slot and free its memory."""

    def fork_prefix(self, source: Slot, into: Slot, length: int) -> None:
        """Make the first ``length`` positions of ``source`` the beginning of ``into``.

        Args:
            source: its keys and values up to ``length`` are final.
            into: a slot in which nothing has run yet.
            length: tokens.
        """

    def run(self, step: Step) -> StepResult:
        """Compute one step.

        After a failed run, the same step or parts of it may run again: the repetition overwrites everything that the
        failed run has written.
        """

    def logits(self, slot: Slot, start: int, stop: int, temperature: float) -> Tensor:
        """Processed logits of canvas positions, after a guided step: soft-capped, then divided by the temperature.

        Args:
            slot: of the sequence.
            start: first canvas position.
            stop: position after the last.
            temperature: divisor of the logits.

        Returns:
            float32 ``[stop - start, vocab]`` on the host.
        """

    def label_logits(self, slot: Slot, positions: Sequence[int], labels: Sequence[Sequence[int]]) -> list[Tensor]:
        """Soft-capped logits of a few tokens per position, after a guided step. No temperature divides them.

        Args:
            slot: of the sequence.
            positions: canvas positions.
            labels: token ids per position.

        Returns:
            For each position float32 ``[labels]`` on the host.
        """

    def prediction_logits(self, slot: Slot, row: int, apart: bool) -> Tensor:
        """Soft-capped logits of one prediction of the last step, whose ``Predict`` was ``kept``.

        Args:
            slot: of the sequence.
            row: number of the prediction.
            apart: whether it belongs to the segment that was kept apart.

        Returns:
            float32 ``[vocab]`` on the host.
        """

    def slot_bytes(self, capacity: int) -> int:
        """Bytes of keys and values that a slot of this capacity takes."""

    def free_unused(self) -> None:
        """Free memory that is only kept for reuse."""
