"""Infilling: fixed text is pinned in the canvas, holes are denoised together with both sides in view.

A hole that needs less than its room fills the rest with padding, which is cut away: the text closes up. How well a
checkpoint does that depends on what it has learned; ``training/data/infill.py`` teaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dgemma_core.api.grammar import Grammar
from dgemma_core.api.infilling import Hole
from dgemma_core.api.params import SamplingParams
from dgemma_core.denoise.canvas import Canvas, shortest_canvas
from dgemma_core.denoise.guide import Rows
from dgemma_core.structured.cursor import GrammarCursor
from dgemma_core.structured.region import GrammarRegion


@dataclass
class Filling:
    """A hole while it is being filled.

    Attributes:
        start: position of its first token in the layout.
        stop: behind its last one.
        region: its grammar's cursor, if it has one.
        tokens: what it came to hold, padding included.
    """

    start: int
    stop: int
    region: GrammarRegion | None
    at: int = 0
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """The pieces in tokens.

    Attributes:
        prompt: token ids before the first hole.
        cells: token ids behind it, None where a hole is.
        fillings: the holes.
    """

    prompt: list[int]
    cells: list[int | None]
    fillings: list[Filling]

    def canvas_length(self, limit: int) -> int:
        """Positions of the shortest canvas that holds all cells and the end, or ``limit``."""
        return shortest_canvas(len(self.cells) + 1, limit)

    def room(self, canvas_length: int) -> int:
        """Positions of the whole canvases that hold all cells and the end."""
        return -(-(len(self.cells) + 1) // canvas_length) * canvas_length


def check_params(params: SamplingParams) -> None:
    """Refuse what follows from the pieces.

    Raises:
        ValueError: naming the parameter.
    """
    for name in ("max_new_tokens", "grammar"):
        if getattr(params, name) is not None:
            raise ValueError(f"{name}={getattr(params, name)!r}: follows from the pieces, give it to a Hole")
    if params.stop:
        raise ValueError(f"stop={list(params.stop)!r}: a stop string cannot cut a text whose end is given")


def lay_out(
    pieces: Sequence[str | Hole],
    begin: list[int],
    encode: Callable[[str], list[int]],
    cursor: Callable[[Grammar, int], GrammarCursor],
) -> Layout:
    """Turn pieces into token cells.

    A blank before a hole is left to the hole, because it belongs to the first token of a word.

    Args:
        pieces: texts and holes.
        begin: tokens a prompt begins with.
        encode: plain text to token ids.
        cursor: a grammar's cursor with so much room.

    Raises:
        ValueError: no hole, a piece that is neither text nor hole, or nothing at all before the first hole.
        GrammarError: a hole's grammar cannot be used, or its room is too small for it.
    """
    if isinstance(pieces, str) or not any(isinstance(piece, Hole) for piece in pieces):
        raise ValueError("pieces: give a list of texts with at least one Hole among them")
    prompt, cells, fillings = list(begin), [], []  # type: tuple[list[int], list[int | None], list[Filling]]
    for index, piece in enumerate(pieces):
        if isinstance(piece, Hole):
            region = None if piece.grammar is None else GrammarRegion(cursor(piece.grammar, piece.max_tokens))
            fillings.append(Filling(len(cells), len(cells) + piece.max_tokens, region, at=len(cells)))
            cells += [None] * piece.max_tokens
        elif isinstance(piece, str):
            before_hole = index + 1 < len(pieces) and isinstance(pieces[index + 1], Hole)
            ids = encode(without_blank(piece) if before_hole else piece)
            if fillings:
                cells += ids
            else:
                prompt += ids
        else:
            raise ValueError(f"pieces hold {piece!r}: must be text or Hole")
    if not prompt:
        raise ValueError("pieces begin with a Hole, and this tokenizer has no token to begin a text with")
    return Layout(prompt, cells, fillings)


def without_blank(text: str) -> str:
    """``text`` without one blank at its end."""
    return text.removesuffix(" ")


class InfillGuide:
    """A :class:`dgemma_core.denoise.guide.Guide` that pins the fixed cells, canvas by canvas.

    Args:
        layout: of the pieces.
        end_id: stands behind the last piece.
        pad_id: closes holes up and fills the last canvas.
    """

    reads = None
    cut = False

    def __init__(self, layout: Layout, end_id: int, pad_id: int) -> None:
        self._cells: list[int | None] = [*layout.cells, end_id]
        self._fillings = layout.fillings
        self._pad_id = pad_id
        self._offset = 0
        self.end: int | None = None

    def open(self, canvas: Canvas) -> None:
        """Pin fixed text, and what grammars force at the beginning of holes."""
        here = self._cells[self._offset : self._offset + canvas.length]
        filled = [*here, *[self._pad_id] * (canvas.length - len(here))]
        for position, token in enumerate(filled):
            if token is not None:
                canvas.pin(position, [token])
        canvas.horizon = len(here)
        for hole, start, stop in self._here(canvas):
            if hole.region is not None:
                hole.at = self._offset + hole.region.open(canvas, start, stop)
                self._close(hole, canvas, stop)

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        """Verify holes that have a grammar; done when the canvas has settled and they are complete."""
        done = settled
        for hole, _, stop in self._here(canvas):
            if hole.region is not None and hole.at < self._offset + stop:
                hole.at = self._offset + hole.region.review(canvas, hole.at - self._offset, stop, settled, rows)
                self._close(hole, canvas, stop)
                done = done and hole.at == self._offset + stop
        if done:
            for hole, start, stop in self._here(canvas):
                hole.tokens += canvas.argmax[start:stop].tolist()
            left = len(self._cells) - self._offset
            self.end = left - 1 if left <= canvas.length else None
            self._offset += canvas.length
        return done

    def _here(self, canvas: Canvas) -> list[tuple[Filling, int, int]]:
        """Holes that reach into the canvas, with their positions in it."""
        low, high = self._offset, self._offset + canvas.length
        return [
            (hole, max(hole.start, low) - low, min(hole.stop, high) - low)
            for hole in self._fillings
            if hole.start < high and hole.stop > low
        ]

    def _close(self, hole: Filling, canvas: Canvas, stop: int) -> None:
        """Fill up a hole whose grammar is through."""
        at = hole.at - self._offset
        if hole.region is not None and hole.region.complete and at < stop:
            canvas.pin(at, [self._pad_id] * (stop - at))
            hole.at = self._offset + stop


def hole_tokens(tokens: Sequence[int], closing: frozenset[int]) -> list[int]:
    """A hole's tokens up to the first one that closes it."""
    return list(tokens[: next((i for i, token in enumerate(tokens) if token in closing), len(tokens))])


def join(pieces: Sequence[str | Hole], filled: Sequence[str]) -> tuple[str, list[str]]:
    """The whole text and the holes' texts, the blank before a hole given back to the text."""
    texts: list[str] = []
    holes: list[str] = []
    waiting = iter(filled)
    for before, piece in zip(["", *pieces], pieces, strict=False):
        if isinstance(piece, str):
            texts.append(piece)
            continue
        text = next(waiting)
        # What a grammar allowed stays whole.
        if piece.grammar is None and isinstance(before, str) and before.endswith(" "):
            text = text.removeprefix(" ")
        holes.append(text)
        texts.append(text)
    return "".join(texts), holes
