"""Text of a grammar from a model that writes all positions at once: draft, verify, repair.

Masking position by position, as autoregressive engines do, does not work here: positions that are not accepted yet hold
random tokens, and the committed text is the last step's argmax canvas. Instead:

1. Draft. The canvas is denoised freely.
2. Verify. After every step the canvas's steady prefix is matched against the grammar.
3. Repair. Where a token does not fit, a search over the canvas's own distributions finds the likeliest tokens that do.
   It starts a few positions earlier, because the mistake is often earlier than the token that shows it: a tool's name
   may have begun like another's. The same search decides where the grammar forces other tokens than the draft has: a
   wrong first letter may leave only one name.

After a repair the rest of the canvas is denoised again and adapts.

Drafting freely and constraining afterwards follows https://arxiv.org/abs/2603.03305; the search over the parallel
distributions follows https://arxiv.org/abs/2602.00612. Both describe masked models.
"""

from __future__ import annotations

from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.guide import Rows
from dgemma_core.structured.grammar_cursor import GrammarCursor
from dgemma_core.structured.grammar_region import GrammarRegion


class GrammarGuide:
    """A :class:`~dgemma_core.denoise.guide.Guide` for an answer that is one text of a grammar, on one or more canvases.

    Args:
        cursor: the grammar, at its beginning.
    """

    reads = None

    def __init__(self, cursor: GrammarCursor) -> None:
        self._region = GrammarRegion(cursor)
        self._at = 0
        self.end: int | None = None
        self.cut = False

    def open(self, canvas: Canvas) -> None:
        """Pin the tokens that the grammar forces at the canvas's beginning."""
        self._at = self._region.open(canvas, 0, canvas.length)

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Keep the canvas within the grammar; done when the text ends or the canvas is full."""
        self._at = self._region.review(canvas, self._at, canvas.length, settled, rows)
        if self._region.complete:
            self.end = self._at
            self.cut = self._region.cut(canvas, self._at, canvas.length, rows)
            return True
        if self._at < canvas.length:
            ahead = self._region.cursor.ends_after(canvas.draft(self._at, canvas.length))
            canvas.horizon = None if ahead is None else self._at + ahead
            return False
        return True
