"""One request inside the engine: waiting, prefill, denoising and commit in turn, until it ends.

Where it stands follows from its cache, its pending tokens and its canvas; nothing is stored twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager

import torch
from torch import Tensor

from dgemma_core.api.events import FinishReason
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.usage import Usage
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.denoise.canvas import Canvas, DenoiseSettings
from dgemma_core.denoise.guide import Guide
from dgemma_core.execution.kv_cache import SequenceCache
from dgemma_core.execution.readout import Rows
from dgemma_core.execution.vision import PlacedImage, image_identities


class Sequence:
    """A request inside the engine. Owned by the worker thread once it is queued.

    ``tokens`` are the prompt followed by finished canvases; ``cache.committed`` of them have keys and values, the rest
    is ``pending`` for the next encoder pass (a prompt chunk at first, one finished canvas later).

    Args:
        handle: the caller's side.
        prompt: token ids.
        settings: denoising settings, defaults filled in.
        max_new_tokens: exact bound on the answer.
        stop: stop strings.
        detokenizer: turns answer tokens into text, incrementally.
        seed: seeds the request's own generator.
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
        seed: int | None,
        drafts: bool,
        timeout: float | None,
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
        self._timeout = timeout
        self.guide = guide
        self.images: tuple[PlacedImage, ...] = tuple(images)
        self._identities = image_identities(self.tokens, images) if images else None
        self.blocks = 0
        self.cache: SequenceCache | None = None
        self.canvas: Canvas | None = None
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self._cached_tokens = 0
        self._canvases = 0
        self._steps = 0
        self._positions = 0
        self._guide_s = 0.0
        self._submitted = time.monotonic()
        self.restart_clock()
        self._started: float | None = None
        self._denoising_since: float | None = None

    @property
    def capacity(self) -> int:
        """Positions to make room for: prompt, answer rounded up to whole canvases."""
        canvas = self.settings.canvas_length
        return self.prompt_length + -(-self.max_new_tokens // canvas) * canvas

    @property
    def pending(self) -> int:
        """Tokens that still need an encoder pass before the next canvas can be denoised."""
        return len(self.tokens) - (self.cache.committed if self.cache else 0)

    @property
    def reads(self) -> tuple[int, ...] | None:
        """Canvas positions that its guide reads, where that is all that is computed of them; see ``Guide.reads``."""
        return None if self.guide is None else self.guide.reads

    @property
    def prefilling(self) -> bool:
        """Whether some of the prompt still needs an encoder pass."""
        return len(self.tokens) - self.pending < self.prompt_length

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

    def start(self, cache: SequenceCache) -> None:
        """Begin, with room for keys and values (and, maybe, a reused prefix in it)."""
        self.cache = cache
        self._cached_tokens = cache.committed
        self._drop_images()
        self._started = time.monotonic()

    def restart_clock(self) -> None:
        """Count the timeout from now on."""
        self.deadline = None if self._timeout is None else time.monotonic() + self._timeout

    def chunk(self, limit: int, skip: int = 0) -> int:
        """How many pending tokens behind the first ``skip`` to encode within ``limit``.

        An image is encoded whole: 0 where one does not fit.
        """
        count = min(self.pending - skip, limit)
        begin = len(self.tokens) - self.pending + skip
        for image in self.images:
            if image.start < begin + count < image.stop:
                return image.start - begin
        return count

    def images_within(self, begin: int, count: int) -> list[PlacedImage]:
        """The images among ``count`` pending tokens from position ``begin`` on."""
        return [image for image in self.images if begin <= image.start < begin + count]

    def borrowed(self, count: int) -> None:
        """The next ``count`` pending tokens have keys and values that another sequence's pass has computed."""
        self._cached_tokens += count
        self.encoded(count)

    def encoded(self, count: int) -> None:
        """The next ``count`` pending tokens have their keys and values."""
        assert self.cache is not None
        self.cache.committed += count
        self._drop_images()

    def _drop_images(self) -> None:
        if self.images and self.cache is not None:
            committed = self.cache.committed
            self.images = tuple(image for image in self.images if image.stop > committed)

    def open_canvas(
        self, vocab_size: int, end_ids: Tensor, hidden_size: int, device: torch.device, dtype: torch.dtype
    ) -> Canvas:
        """The canvas being denoised; a fresh one of uniform noise if there is none."""
        if self.canvas is None:
            soft = torch.zeros(self.settings.canvas_length, hidden_size, device=device, dtype=dtype)
            # All room first: where there is none, nothing has been drawn yet, and a repeated step draws the same.
            hidden = None if self.guide is None else torch.zeros_like(soft)
            canvas = Canvas(self.settings, vocab_size, end_ids, self.budget, soft, self.generator)
            canvas.hidden = hidden
            if self.guide is not None:
                with self._guiding():
                    self.guide.open(canvas)
            # Only now: where the guide fails, a repeated step must not go on without it.
            self.canvas = canvas
        return self.canvas

    def count_step(self, positions: int) -> None:
        """Book one denoising step."""
        self._steps += 1
        self._positions += positions
        if self._denoising_since is None:
            self._denoising_since = time.monotonic()

    def review(self, settled: bool, rows: Rows) -> bool:
        """Have the guide look at the canvas after a step; returns whether it is done."""
        assert self.guide is not None
        assert self.canvas is not None
        with self._guiding():
            return self.guide.review(self.canvas, settled, rows)

    @contextmanager
    def _guiding(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._guide_s += time.perf_counter() - began

    def close_canvas(self, end_ids: frozenset[int]) -> tuple[list[int], FinishReason | None]:
        """Take the finished canvas's argmax tokens as answer.

        Returns:
            The kept tokens (cut before the end token and at the token budget) and why the answer ends here, if it does.
        """
        assert self.canvas is not None
        tokens = self.canvas.argmax.tolist()
        if self.guide is None:
            end = next((i for i, token in enumerate(tokens) if token in end_ids), len(tokens))
        else:
            end = len(tokens) if self.guide.end is None else self.guide.end
        budget = self.budget
        self.canvas = None
        self._canvases += 1
        if self.guide is not None and self.guide.end is not None:
            return tokens[:end], "length" if self.guide.cut else "stop"
        if end < min(len(tokens), budget + 1):
            return tokens[:end], "stop"
        if budget <= len(tokens):
            return tokens[:budget], "length"
        self.tokens.extend(tokens)
        return tokens, None

    def usage(self) -> Usage:
        """What the request has cost so far."""
        now = time.monotonic()
        started = self._started or now
        denoising = self._denoising_since or now
        return Usage(
            prompt_tokens=self.prompt_length,
            cached_tokens=self._cached_tokens,
            completion_tokens=len(self.detokenizer.kept),
            reasoning_tokens=self.detokenizer.reasoning_tokens,
            canvases=self._canvases,
            denoising_steps=self._steps,
            positions=self._positions,
            guide_s=self._guide_s,
            queue_s=started - self._submitted,
            prefill_s=denoising - started,
            denoise_s=now - denoising,
        )
