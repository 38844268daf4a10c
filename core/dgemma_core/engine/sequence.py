"""One request inside the engine: waiting, prefill, denoising and commit in turn, until it ends.

Where it stands follows from its slot, its pending tokens and its canvas; nothing is stored twice.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from dgemma_core.api.events import FinishReason
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.usage import Usage
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.chat.image_patches import PlacedImage, image_identities
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.guide import Guide, Rows
from dgemma_core.denoise.settings import DenoiseSettings
from dgemma_core.engine.costs import Costs
from dgemma_core.execution.backend import Slot


class Sequence:
    """A request inside the engine. Owned by the worker thread once it is queued.

    ``tokens`` are the prompt followed by finished canvases. Of them, ``committed`` have keys and values in the
    backend's ``slot``; the rest is ``pending`` for the next encoder pass (a prompt chunk at first, one finished canvas
    later).

    Args:
        handle: the caller's side.
        prompt: token ids.
        settings: denoising settings, defaults filled in.
        max_new_tokens: exact bound on the answer.
        detokenizer: turns answer tokens into text, incrementally.
        seed: seeds the request's own generator; None draws a fresh seed.
        drafts: whether the caller wants draft events.
        timeout: seconds after which the request has failed, or None.
        guide: steers its canvases, if anything does.
        images: of the prompt, in order. Each is dropped once its tokens are encoded.
    """

    def __init__(
        self,
        handle: RequestHandle,
        prompt: Seq[int],
        settings: DenoiseSettings,
        max_new_tokens: int,
        detokenizer: Detokenizer,
        seed: int | None = None,
        drafts: bool = False,
        timeout: float | None = None,
        guide: Guide | None = None,
        images: Seq[PlacedImage] = (),
    ) -> None:
        self.handle = handle
        self.tokens: list[int] = list(prompt)
        self.prompt_length = len(self.tokens)
        self.settings = settings
        self.max_new_tokens = max_new_tokens
        self.detokenizer = detokenizer
        self.drafts = drafts
        self.guide = guide
        self.images: tuple[PlacedImage, ...] = tuple(images)
        self._identities = image_identities(self.tokens, images) if images else None
        self.costs = Costs(timeout)
        self.blocks = 0
        self.slot: Slot | None = None
        self.committed = 0
        self.canvas: Canvas | None = None
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)

    @property
    def capacity(self) -> int:
        """Positions to make room for: the prompt, and the answer rounded up to whole canvases."""
        canvas = self.settings.canvas_length
        return self.prompt_length + -(-self.max_new_tokens // canvas) * canvas

    @property
    def pending(self) -> int:
        """Tokens that still need an encoder pass before the next canvas can be denoised."""
        return len(self.tokens) - self.committed

    @property
    def reads(self) -> tuple[int, ...] | None:
        """Canvas positions that its guide reads, where that is all that is computed of them; see ``Guide.reads``."""
        return None if self.guide is None else self.guide.reads

    @property
    def prefilling(self) -> bool:
        """Whether some of the prompt still needs an encoder pass."""
        return self.committed < self.prompt_length

    @property
    def identities(self) -> Seq[int]:
        """The tokens as prompts are compared: token ids, but an image's tokens stand for what it shows."""
        if self._identities is None:
            return self.tokens
        return [*self._identities, *self.tokens[self.prompt_length :]]

    @property
    def budget(self) -> int:
        """Tokens the answer may still take."""
        return self.max_new_tokens - (len(self.tokens) - self.prompt_length)

    @property
    def active(self) -> int:
        """Canvas positions the next denoising step computes."""
        return self.canvas.active if self.canvas else self.settings.canvas_length

    def start(self, slot: Slot, reused: int) -> None:
        """Begin, with a slot that already holds ``reused`` tokens of a known prefix."""
        self.slot = slot
        self.committed = self.costs.cached_tokens = reused
        self._drop_images()
        self.costs.start()

    def chunk(self, limit: int, skip: int = 0) -> int:
        """How many pending tokens, after the first ``skip``, to encode within ``limit``.

        An image is encoded whole: 0 where one does not fit.
        """
        count = min(self.pending - skip, limit)
        begin = self.committed + skip
        for image in self.images:
            if image.start < begin + count < image.stop:
                return image.start - begin
        return count

    def images_within(self, begin: int, count: int) -> list[PlacedImage]:
        """The images among ``count`` tokens from position ``begin`` on."""
        return [image for image in self.images if begin <= image.start < begin + count]

    def borrowed(self, count: int) -> None:
        """The next ``count`` pending tokens have keys and values that another sequence's pass has computed."""
        self.costs.cached_tokens += count
        self.encoded(count)

    def encoded(self, count: int) -> None:
        """The next ``count`` pending tokens have their keys and values."""
        self.committed += count
        self._drop_images()

    def _drop_images(self) -> None:
        if self.images:
            self.images = tuple(image for image in self.images if image.stop > self.committed)

    def open_canvas(self, vocab_size: int, end_ids: Tensor) -> Canvas:
        """The canvas being denoised; a fresh one of uniform noise if there is none.

        Args:
            vocab_size: noise is uniform over it.
            end_ids: int64, ids that end an answer.
        """
        if self.canvas is None:
            canvas = Canvas(self.settings, vocab_size, end_ids, self.budget, self.generator)
            if self.guide is not None:
                with self.costs.guiding():
                    self.guide.open(canvas)
            # Only now: where the guide fails, a repeated step must not go on without it.
            self.canvas = canvas
        return self.canvas

    def review(self, settled: bool, rows: Rows) -> bool:
        """Have the guide look at the canvas after a step; returns whether it is done."""
        assert self.guide is not None
        assert self.canvas is not None
        with self.costs.guiding():
            return self.guide.review(self.canvas, settled, rows)

    def close_canvas(self, end_ids: frozenset[int]) -> tuple[list[int], FinishReason | None]:
        """Take the finished canvas's argmax tokens as answer.

        Returns:
            The kept tokens (cut before the end token and at the token budget) and why the answer ends here, if it does.
        """
        assert self.canvas is not None
        tokens = self.canvas.argmax.tolist()
        budget = self.budget
        self.canvas = None
        self.costs.canvas()
        if self.guide is not None and self.guide.end is not None:
            return tokens[: self.guide.end], "length" if self.guide.cut else "stop"
        end = len(tokens) if self.guide is not None else len(before_end(tokens, end_ids))
        if end < min(len(tokens), budget + 1):
            return tokens[:end], "stop"
        if budget <= len(tokens):
            return tokens[:budget], "length"
        self.tokens.extend(tokens)
        return tokens, None

    def usage(self) -> Usage:
        """What the request has cost so far."""
        detokenizer = self.detokenizer
        return self.costs.usage(self.prompt_length, len(detokenizer.kept), detokenizer.reasoning_tokens)


def before_end(tokens: Seq[int], end_ids: frozenset[int]) -> Seq[int]:
    """The tokens before the first one that ends an answer."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in end_ids), len(tokens))]
