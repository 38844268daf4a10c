"""Consecutive positions of canvases that hold one text of a grammar: a whole answer, or one hole of a text."""

from __future__ import annotations

from collections.abc import Sequence

from dgemma_core.denoise.canvas import Canvas, leading
from dgemma_core.denoise.guide import Rows
from dgemma_core.structured.grammar_cursor import GrammarCursor

BACK = 8  # A repair starts at most this many tokens before the token that does not fit,
AHEAD = 6  # and reads this many positions from that token on.
RENEWAL = 4  # With fewer denoising steps left, the positions after a repair are not restarted from noise.


class GrammarRegion:
    """Keeps a region of a canvas within a grammar: it verifies the draft from left to right and repairs it.

    Args:
        cursor: the grammar, at its beginning.

    Attributes:
        cursor: the grammar after the verified tokens.
        complete: whether the text ends at the first position that is not verified.
    """

    def __init__(self, cursor: GrammarCursor) -> None:
        self.cursor = cursor
        self.complete = False
        self._reach = 0  # The position after the region's last one, whatever the room.

    def open(self, canvas: Canvas, start: int, stop: int) -> int:
        """Pin the tokens that the grammar forces at ``start``; returns the first position that is not verified."""
        return start if self.complete else self._pin_forced(canvas, start, stop)

    def review(self, canvas: Canvas, start: int, stop: int, settled: bool, rows: Rows) -> int:
        """Verify or repair the steady prefix of ``[start, stop)``: its leading steady positions.

        Args:
            canvas: after a denoising step.
            start: the first position that is not verified.
            stop: the position after the region's last one.
            settled: whether the sampler's own rule would stop here; then the whole draft counts as steady.
            rows: the step's distributions.

        Returns:
            The first position that is not verified now. If it is below ``stop`` and the text is not
            :attr:`complete`, the rest needs further denoising.
        """
        if self.complete or start == stop:
            return start
        self._reach = stop
        stop = min(stop, start + self.cursor.room)
        if canvas.exhausted:
            return self._finish(canvas, start, stop, rows)
        draft = canvas.draft(start, stop)
        prefix = len(draft) if settled else leading(canvas.steady[start:stop])
        fits = self.cursor.fits(draft)
        if fits < prefix:
            return self._mend(canvas, start, start + fits, stop, rows)
        if settled:
            at = self._take(canvas, start, stop)
            # A draft that the grammar allows may still be too long for the room.
            return at if self.complete or at == stop else self._mend(canvas, at, at, stop, rows)
        if fits == len(draft) or fits >= prefix + len(self.cursor.forced_after(draft[:prefix])):
            return start
        # After the steady prefix the draft differs from the tokens forced there. One of the two is wrong.
        return self._mend(canvas, start, start + fits, stop, rows)

    def cut(self, canvas: Canvas, at: int, stop: int, rows: Rows) -> bool:
        """Whether the text, which is complete before ``at``, would have been another one with more room.

        Args:
            canvas: after a denoising step.
            at: the position after the text.
            stop: the position after the region's last one.
            rows: the step's distributions.
        """
        return self.cursor.cut_before(canvas.draft(at, stop), lambda: rows.logits(at, at + 1))

    def _mend(self, canvas: Canvas, start: int, place: int, stop: int, rows: Rows) -> int:
        """Replace the draft's token at ``place``, which does not fit, and possibly some tokens before it."""
        before = self.cursor.loose_end(canvas.draft(max(start, place - BACK), place))
        begin, sure = place - len(before), bool(canvas.steady[place])
        at = self._take(canvas, start, begin)
        found = None
        if at == begin and not self.complete:
            found = self.cursor.search(rows.logits(begin, min(self._reach, place + AHEAD)), place + 1 - begin)
        if found is None and not self.complete:
            at = self._take(canvas, at, place)
            found = None if self.complete else self.cursor.repair(rows.logits(at, at + 1)[0], stop - at)
        if found is not None:
            at = self._pin(canvas, at, *found)
        if not self.complete:
            at = self._pin_forced(canvas, at, stop)
        # Only the token at `place` changed, and it was not steady: further denoising adapts the rest without a restart.
        adapts = not sure and found is not None and found[0][: len(before)] == before
        if not adapts and not self.complete and at < stop and canvas.steps_left >= RENEWAL:
            canvas.disturb(at, self._reach)
        return at

    def _finish(self, canvas: Canvas, start: int, stop: int, rows: Rows) -> int:
        """Verify and repair up to ``stop`` or the text's end; the last denoising step is over."""
        at = first = self._take(canvas, start, stop)
        if self.complete or at == stop:
            return at
        logits = rows.logits(at, stop)
        while not self.complete and at < stop:
            at = self._pin(canvas, at, *self.cursor.repair(logits[at - first], stop - at))
            if not self.complete:
                at = self._pin_forced(canvas, at, stop)
            if not self.complete:
                at = self._take(canvas, at, stop)
        return at

    def _take(self, canvas: Canvas, at: int, stop: int) -> int:
        """Verify the draft from ``at`` on, as far as it fits."""
        return self._pin(canvas, at, *self.cursor.take(canvas.draft(at, self._reach), stop - at))

    def _pin_forced(self, canvas: Canvas, at: int, stop: int) -> int:
        return self._pin(canvas, at, self.cursor.take_forced(stop - at), self.cursor.stopped)

    def _pin(self, canvas: Canvas, at: int, tokens: Sequence[int], complete: bool) -> int:
        canvas.pin(at, tokens)
        self.complete = complete
        return at + len(tokens)
