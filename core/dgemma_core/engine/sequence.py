"""One request inside the engine. It waits, is prefilled, and then denoises and commits canvas after canvas.

Its stage is not stored: it follows from the slot, the pending tokens and the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from dgemma_core.api.events import FinishReason, TokenLogprob
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.usage import Usage
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.chat.image_patches import PlacedImage, image_identities
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.causal_writer import Accepted, CausalWriter
from dgemma_core.denoise.denoise_settings import DenoiseSettings
from dgemma_core.denoise.guide import Guide, Rows
from dgemma_core.engine.costs import Costs
from dgemma_core.execution.backend import Slot


class Sequence:
    """A request inside the engine. Owned by the worker thread once it is queued.

    ``tokens`` are the prompt, then the finished canvases. The first ``committed`` of them have keys and values in the
    backend's ``slot``. The rest is ``pending``: the next encoder passes take it, first the prompt in chunks, later one
    finished canvas at a time.

    Args:
        handle: the caller's side.
        prompt: token ids.
        settings: denoising settings, with defaults filled in.
        max_new_tokens: exact bound on the answer.
        detokenizer: turns answer tokens into text, incrementally.
        seed: seeds the request's own generator; None draws a fresh seed.
        drafts: whether the caller wants draft events.
        timeout: seconds after which the request has failed, or None.
        guide: steers the canvases; None for free text.
        images: of the prompt, in order. Each is dropped after its tokens are encoded.
        writer: writes the answer in the causal mode; None for an answer that is denoised canvas by canvas.
        banned: token ids that the answer never has.
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
        writer: CausalWriter | None = None,
        banned: tuple[int, ...] = (),
    ) -> None:
        self.handle = handle
        self.tokens: list[int] = list(prompt)
        self.prompt_length = len(self.tokens)
        self.settings = settings
        self.max_new_tokens = max_new_tokens
        self.detokenizer = detokenizer
        self.drafts = drafts
        self.guide = guide
        self.writer = writer
        self.unadopted = 0
        self.logprobs: list[TokenLogprob] | None = None
        if writer is not None and writer.logprobs is not None:
            self.logprobs = []
        self.banned = banned
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
        """Positions that the slot needs: the prompt, and the answer with its canvases."""
        if self.writer is not None:
            return self.prompt_length + self.max_new_tokens + self.writer.beside
        canvas = self.settings.canvas_length
        return self.prompt_length + -(-self.max_new_tokens // canvas) * canvas

    @property
    def pending(self) -> int:
        """Tokens that still need an encoder pass before the next canvas can be denoised."""
        return len(self.tokens) - self.committed

    @property
    def guided(self) -> bool:
        """Whether a guide keeps the answer within a grammar."""
        return self.guide is not None or (self.writer is not None and self.writer.guide is not None)

    @property
    def reads(self) -> tuple[int, ...] | None:
        """The guide's ``reads``: positions of a canvas that is only read, or None for a canvas that is denoised."""
        return None if self.guide is None else self.guide.reads

    @property
    def prefilling(self) -> bool:
        """Whether some of the prompt still needs an encoder pass."""
        return self.committed < self.prompt_length

    @property
    def identities(self) -> Seq[int]:
        """The tokens as prefixes are compared: token ids, but the image's identity for each token of an image."""
        if self._identities is None:
            return self.tokens
        return [*self._identities, *self.tokens[self.prompt_length :]]

    @property
    def final(self) -> int:
        """Tokens whose keys and values in the slot are final."""
        return self.committed - self.unadopted

    @property
    def budget(self) -> int:
        """Tokens the answer may still take."""
        return self.max_new_tokens - (len(self.tokens) - self.prompt_length)

    @property
    def active(self) -> int:
        """Positions of drafts that the next pass computes: of its canvas, and of what is verified."""
        if self.writer is not None:
            # The prompt is encoded without drafts.
            return self.writer.canvas_length if self.prefilling else self.writer.rows(self.pending)
        return self.canvas.active if self.canvas else self.settings.canvas_length

    def start(self, slot: Slot, reused: int) -> None:
        """Begin in a slot whose first ``reused`` tokens came from the prefix cache."""
        self.slot = slot
        self.committed = self.costs.cached_tokens = reused
        self._drop_images()
        self.costs.start()

    def chunk(self, limit: int, skip: int = 0) -> int:
        """Number of pending tokens, after the first ``skip``, to encode within ``limit``.

        An image is encoded whole. The chunk ends before an image that does not fit, so it may be 0.
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
        """Book ``count`` pending tokens whose keys and values were copied from another sequence."""
        self.costs.cached_tokens += count
        self.encoded(count)

    def encoded(self, count: int) -> None:
        """Book ``count`` pending tokens that now have keys and values."""
        self.committed += count
        self.unadopted = 0  # The pass has adopted them.
        self._drop_images()

    def _drop_images(self) -> None:
        if self.images:
            self.images = tuple(image for image in self.images if image.stop > self.committed)

    def open_canvas(self, vocab_size: int, end_ids: Tensor) -> Canvas:
        """The canvas being denoised. If there is none, a new one of uniform noise, which the guide has opened.

        Args:
            vocab_size: noise tokens are uniform below it.
            end_ids: int64 ``[ends]``, ids that end an answer.
        """
        if self.canvas is None:
            # A guide also looks at the position after the budget: it tells whether the answer ends with the budget.
            budget = self.budget + (self.guide is not None)
            canvas = Canvas(self.settings, vocab_size, end_ids, budget, self.generator)
            if self.guide is not None:
                with self.costs.guiding():
                    self.guide.open(canvas)
            # Set after the guide has succeeded, because a canvas must not be denoised without its pins.
            self.canvas = canvas
        return self.canvas

    def review(self, settled: bool, rows: Rows) -> bool:
        """Have the guide look at the canvas after a step. Returns whether the canvas is done."""
        assert self.guide is not None
        assert self.canvas is not None
        with self.costs.guiding():
            return self.guide.review(self.canvas, settled, rows)

    def close_canvas(self, end_ids: frozenset[int]) -> tuple[list[int], FinishReason | None]:
        """Take the likeliest tokens of the finished canvas as the next part of the answer.

        Returns:
            The kept tokens, cut before the end token and at the token budget, and the reason if the answer ends here.
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

    def begin(self) -> Accepted:
        """Write what a grammar forces before the first pass, which encodes it with the prompt."""
        assert self.writer is not None
        with self.costs.guiding(self.guided):
            accepted = self.writer.begin()
        if self.logprobs is not None:
            self.logprobs += (TokenLogprob(token, self.detokenizer.spelled(token), 0.0) for token in accepted.tokens)
        self.tokens.extend(accepted.tokens)
        return accepted

    def written(self, accepted: Accepted, encoded: int, moved: int) -> None:
        """Book what a writer has accepted.

        Args:
            accepted: new tokens, the first of which may have keys and values already.
            encoded: tokens that the pass encoded before the draft.
            moved: positions before those of the draft that the canvas moves past.
        """
        assert self.writer is not None
        self.tokens.extend(accepted.tokens)
        self.committed += accepted.drafted
        self.unadopted = encoded + accepted.drafted if accepted.draft else 0
        if self.writer.canvas is not None:
            self.writer.canvas.move(moved + accepted.drafted, self.tokens[self.committed :])

    def usage(self) -> Usage:
        """What the request has cost so far."""
        detokenizer = self.detokenizer
        return self.costs.usage(self.prompt_length, len(detokenizer.kept), detokenizer.reasoning_tokens)


def before_end(tokens: Seq[int], end_ids: frozenset[int]) -> Seq[int]:
    """The tokens before the first one that ends an answer."""
    return tokens[: next((i for i, token in enumerate(tokens) if token in end_ids), len(tokens))]
