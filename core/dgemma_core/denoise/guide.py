"""The interface of guides. A guide steers a canvas while it is denoised: a grammar, a decision or an infilling.

When the loop opens a canvas, it has the guide pin the tokens that are known already. After each denoising step it asks
the guide whether the canvas is done. Guides run on the worker thread between two steps. A guide changes only the canvas
it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from dgemma_core.denoise.canvas import Canvas


class Rows(Protocol):
    """Distributions of a canvas's positions after the last step. They are computed when a guide asks for them."""

    def logits(self, start: int, stop: int) -> Tensor:
        """Processed logits (soft-capped, divided by the temperature) of positions ``[start, stop)``.

        Returns:
            float32 ``[stop - start, vocab]`` on the host.
        """

    def label_logits(self, positions: Sequence[int], labels: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits of a few tokens per position. The rest of the vocabulary is not computed.

        Args:
            positions: canvas positions.
            labels: token ids per position.

        Returns:
            For each position soft-capped float32 logits ``[labels]`` on the host, not divided by the temperature.
        """


class Guide(Protocol):
    """Steers the canvases of one request, one after the other."""

    @property
    def reads(self) -> tuple[int, ...] | None:
        """The positions that :meth:`review` reads of a canvas that is only read. None for a canvas that is denoised.

        For a canvas that is only read, a step computes no statistics over the vocabulary, and its last layer computes
        these positions only.
        """

    @property
    def end(self) -> int | None:
        """Where the answer ends in the canvas just reviewed. None if it goes on after the canvas."""

    @property
    def cut(self) -> bool:
        """Whether the answer would have been another one with a larger token budget; known where :attr:`end` is."""

    def open(self, canvas: Canvas) -> None:
        """Pin the tokens of a new canvas that are known already."""

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Look at a canvas after a denoising step, and pin more of it.

        Args:
            canvas: after the step.
            settled: whether the stopping rule of ``Canvas.advance`` would end it here.
            rows: the distributions after the step.

        Returns:
            Whether the canvas is done. Then ``canvas.argmax`` up to :attr:`end` is the answer's next part.
        """
