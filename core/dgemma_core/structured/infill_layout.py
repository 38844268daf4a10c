"""Infilling: the layout of a text with holes in tokens, and the filled text.

All holes of a canvas are denoised together, each with the text on both sides of it in view. A hole that needs fewer
tokens than it has room for fills the rest with padding, which is left out of the text. How well a checkpoint does that
depends on its training; ``training/data/infill.py`` teaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dgemma_core.api.grammar import Grammar
from dgemma_core.api.infilling import Hole
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.denoise.canvas import shortest_canvas
from dgemma_core.structured.grammar_cursor import GrammarCursor
from dgemma_core.structured.grammar_region import GrammarRegion


@dataclass
class Filling:
    """A hole while it is being filled. Positions are indices into the layout's cells.

    Attributes:
        start: position of its first token.
        stop: position after its last token.
        region: keeps it within its grammar; None if it has no grammar.
        at: with a grammar, the first position that is not verified.
        tokens: what it holds in the canvases that are done, padding included.
        cut: whether its grammar's text would have been another one with more room.
    """

    start: int
    stop: int
    region: GrammarRegion | None
    at: int = 0
    tokens: list[int] = field(default_factory=list)
    cut: bool = False

    def full(self, closing: frozenset[int]) -> bool:
        """Whether no token in it closes it."""
        return len(hole_tokens(self.tokens, closing)) == self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """The pieces in tokens.

    Attributes:
        prompt: token ids before the first hole.
        cells: token ids after the prompt, None for every position of a hole.
        fillings: the holes.
    """

    prompt: list[int]
    cells: list[int | None]
    fillings: list[Filling]

    def canvas_length(self, limit: int) -> int:
        """Positions of the shortest canvas that holds all cells and the end token, or ``limit``."""
        return shortest_canvas(len(self.cells) + 1, limit)

    def room(self, canvas_length: int) -> int:
        """Positions of all canvases that hold the cells and the end token."""
        return -(-(len(self.cells) + 1) // canvas_length) * canvas_length


def check_params(params: SamplingParams) -> None:
    """Refuse parameters that the pieces determine.

    Raises:
        ValueError: one of them is given; the error names it.
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

    A space before a hole is left out of the text, because it is a part of the first token of the word in the hole.

    Args:
        pieces: texts and holes.
        begin: tokens a prompt begins with.
        encode: plain text to token ids.
        cursor: makes a cursor from a grammar and its room in tokens.

    Raises:
        ValueError: no hole, a piece that is neither text nor hole, or nothing at all before the first hole.
        GrammarError: a hole's grammar cannot be used, or its room is too small for it.
    """
    if isinstance(pieces, str) or not any(isinstance(piece, Hole) for piece in pieces):
        raise ValueError("pieces: give a list of texts with at least one Hole among them")
    prompt = list(begin)
    cells: list[int | None] = []
    fillings: list[Filling] = []
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
    """``text`` without one space at its end."""
    return text.removesuffix(" ")


def hole_tokens(tokens: Sequence[int], closing: frozenset[int]) -> list[int]:
    """A hole's tokens before the first one that closes it."""
    return list(tokens[: next((i for i, token in enumerate(tokens) if token in closing), len(tokens))])


def join(pieces: Sequence[str | Hole], filled: Sequence[str]) -> tuple[str, list[str]]:
    """The whole text, and the texts of the holes.

    A space before a hole belongs to the fixed text; :func:`lay_out` has left it to the hole.

    Args:
        pieces: texts and holes.
        filled: the decoded text of every hole.
    """
    texts: list[str] = []
    holes: list[str] = []
    waiting = iter(filled)
    for before, piece in zip(["", *pieces], pieces, strict=False):
        if isinstance(piece, str):
            texts.append(piece)
            continue
        text = next(waiting)
        # The text of a grammar stays as it is, or it would no longer fit the grammar.
        if piece.grammar is None and isinstance(before, str) and before.endswith(" "):
            text = text.removeprefix(" ")
        holes.append(text)
        texts.append(text)
    return "".join(texts), holes
