"""Sequences and guides for tests of single modules, with small prompts and canvases of eight positions."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from functools import cache
from typing import Any

import torch

from dgemma_core import RequestHandle
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.chat.image_patches import PlacedImage
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.causal_writer import CausalWriter
from dgemma_core.denoise.denoise_settings import DenoiseSettings
from dgemma_core.denoise.guide import Rows
from dgemma_core.denoise.lookup import Lookup
from dgemma_core.denoise.sampling_rule import GREEDY
from dgemma_core.denoise.sliding_canvas import SlidingCanvas
from dgemma_core.engine.sequence import Sequence
from tests.checkpoints import make_tokenizer

CANVAS = 8
VOCAB = 512
END_IDS = torch.tensor([1, 4])
SETTINGS = DenoiseSettings(
    canvas_length=CANVAS,
    max_denoising_steps=4,
    entropy_bound=0.1,
    t_min=0.4,
    t_max=0.8,
    stability_threshold=1,
    confidence_threshold=0.005,
    stop_at_eos=True,
)


@cache
def tokenizer() -> Any:
    return make_tokenizer()


def make_sequence(prompt: Seq[int] | int = 4, room: int = CANVAS, **options: Any) -> Sequence:
    """A sequence of these tokens, or of so many."""
    tokens = list(range(30, 30 + prompt)) if isinstance(prompt, int) else prompt
    handle = options.pop("handle", None) or RequestHandle(lambda _handle: None)
    settings = options.pop("settings", SETTINGS)
    return Sequence(handle, tokens, settings, room, Detokenizer(tokenizer()), **{"seed": 0, **options})


def make_writer(room: int = 40, lookup: bool = True) -> CausalWriter:
    """A greedy writer of free text with a canvas of eight positions, and drafts of seven tokens."""
    canvas = SlidingCanvas(CANVAS, VOCAB, 0.1, 0.6, torch.Generator().manual_seed(0))
    ends, generator = frozenset(END_IDS.tolist()), torch.Generator()
    return CausalWriter(room, ends, GREEDY, generator, canvas=canvas, lookup=Lookup(200), most=CANVAS - 1)


def placed(start: int, length: int, digest: str = "a1") -> PlacedImage:
    """An image of so many tokens; its patches are empty."""
    return PlacedImage(start, length, digest, torch.zeros(0), torch.zeros(0))


class NoteGuide:
    """Steers nothing and notes what it is asked; may fail when a canvas is opened."""

    def __init__(self, reads: tuple[int, ...] | None = None, failures: int = 0) -> None:
        self.reads = reads
        self.end: int | None = None
        self.cut = False
        self.opened: list[Canvas] = []
        self.reviewed: list[bool] = []
        self._failures = failures

    def open(self, canvas: Canvas) -> None:
        self.opened.append(canvas)
        if self._failures:
            self._failures -= 1
            raise ArithmeticError("no such pin")

    def review(self, canvas: Canvas, settled: bool, rows: Rows) -> bool:
        self.reviewed.append(settled)
        return settled
