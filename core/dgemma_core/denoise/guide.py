"""What may steer a canvas while it is denoised: grammars, decisions and infilling are guides.

The loop asks a guide twice: when a canvas is opened, to pin what is known of it, and after each denoising step, whether
the canvas is done. Guides run on the worker thread, between two steps, and change only the canvas they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from dgemma_core.denoise.canvas import Canvas


class Rows(Protocol):
    """Distributions of a canvas's positions as the last step left them, computed when a guide asks for them."""

    def logits(self, start: int, stop: int) -> Tensor:
        """Processed logits of positions ``[start, stop)``: float32 ``[stop - start, vocab]`` on the host."""

    def label_logits(self, positions: Sequence[int], labels: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits of a few tokens each, without those of the rest of the vocabulary.

        Args:
            positions: canvas positions.
            labels: for each of them the token ids asked for.

        Returns:
            For each position soft-capped float32 logits ``[labels]`` on the host, not divided by the temperature.
        """


class Guide(Protocol):
    """Steers the canvases of one request, one after the other."""

    @property
    def reads(self) -> tuple[int, ...] | None:
        """Of a canvas that is only read, by :meth:`review`, the positions it reads; None for one that is denoised.

        Nothing else is computed then: no statistics over the vocabulary, and no last layer of other positions.
        """

    @property
    def end(self) -> int | None:
        """Where in the canvas that was just reviewed the answer ends, or None if it goes on behind it."""

    @property
    def cut(self) -> bool:
        """Whether the answer ends there only because its room is used up."""

    def open(self, canvas: Canvas) -> None:
        """Pin what is known of a new canvas."""

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Look at a canvas after a denoising step, and pin more of it.

        Args:
            canvas: after the step.
            settled: whether the sampler's own rule would stop here.
            rows: the step's hidden states, to read distributions from.

        Returns:
            Whether the canvas is done. Then ``canvas.argmax`` up to :attr:`end` is the answer's next part.
        """
