"""Denoises the holes of a layout, canvas by canvas, with the fixed text pinned."""

from __future__ import annotations

from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.guide import Rows
from dgemma_core.structured.infill_layout import Filling, Layout


class InfillGuide:
    """A :class:`dgemma_core.denoise.guide.Guide` that pins the cells of fixed text and keeps holes to their grammars.

    Args:
        layout: of the pieces.
        end_id: the token after the last piece.
        pad_id: the token that fills the rest of a hole and of the last canvas.
    """

    reads = None

    def __init__(self, layout: Layout, end_id: int, pad_id: int) -> None:
        self._cells: list[int | None] = [*layout.cells, end_id]
        self._fillings = layout.fillings
        self._pad_id = pad_id
        self._offset = 0  # the cell at the canvas's first position
        self.end: int | None = None

    @property
    def cut(self) -> bool:
        """Whether a hole's text would have been another one with more room."""
        return any(hole.cut for hole in self._fillings)

    def open(self, canvas: Canvas) -> None:
        """Pin fixed text, and the tokens that grammars force at the beginning of holes."""
        here = self._cells[self._offset : self._offset + canvas.length]
        filled = [*here, *[self._pad_id] * (canvas.length - len(here))]
        for position, token in enumerate(filled):
            if token is not None:
                canvas.pin(position, [token])
        canvas.horizon = len(here)
        for hole, start, stop in self._here(canvas):
            if hole.region is not None:
                hole.at = self._offset + hole.region.open(canvas, start, stop)
                self._pad(hole, canvas, stop)

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Verify holes that have a grammar; done when the canvas has settled and these holes are complete."""
        done = settled
        for hole, _, stop in self._here(canvas):
            if hole.region is not None and hole.at < self._offset + stop:
                hole.at = self._offset + hole.region.review(canvas, hole.at - self._offset, stop, settled, rows)
                self._pad(hole, canvas, stop)
                done = done and hole.at == self._offset + stop
        if done:
            for hole, start, stop in self._here(canvas):
                hole.tokens += canvas.argmax[start:stop].tolist()
            left = len(self._cells) - self._offset
            self.end = left - 1 if left <= canvas.length else None
            self._offset += canvas.length
        return done

    def _here(self, canvas: Canvas) -> list[tuple[Filling, int, int]]:
        """The holes that reach into the canvas, each with its first position there and the position after its last."""
        low, high = self._offset, self._offset + canvas.length
        return [
            (hole, max(hole.start, low) - low, min(hole.stop, high) - low)
            for hole in self._fillings
            if hole.start < high and hole.stop > low
        ]

    def _pad(self, hole: Filling, canvas: Canvas, stop: int) -> None:
        """Fill the rest of a hole whose text has ended, and note whether the room cut it."""
        at = hole.at - self._offset
        if hole.region is None or not hole.region.complete:
            return
        # The position after the hole is fixed text, which says nothing of what the hole's text would be.
        hole.cut = hole.region.cursor.cut_before([])
        if at < stop:
            canvas.pin(at, [self._pad_id] * (stop - at))
            hole.at = self._offset + stop
