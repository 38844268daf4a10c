"""The engine's methods that need no weights: facts, tokens and checks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dgemma_core.api.images import Image
from dgemma_core.api.protocol import EngineFacts
from dgemma_core.api.request import Prompt, Request, Tools
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.engine.admission import Admission
from dgemma_core.engine.writers import DraftSource


class Weightless:
    """Facts, tokens and checks. Reads the checkpoint's small files at the first call that needs them.

    Args:
        admission: the engine's.
    """

    def __init__(self, admission: Admission) -> None:
        self.spec = admission.spec
        self._admission = admission
        self._parts = admission.parts

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's ``PreTrainedTokenizerFast``."""
        return self._parts.description.tokenizer

    @property
    def context_window(self) -> int:
        """Most tokens of prompt plus answer."""
        return self._admission.context_window

    @property
    def default_max_new_tokens(self) -> int:
        """Most tokens of an answer, by default."""
        return self._parts.description.max_new_tokens

    @property
    def canvas_length(self) -> int:
        """Positions denoised together, by default. A request may ask for fewer."""
        return self._parts.description.canvas_limit

    @property
    def draft_sources(self) -> frozenset[DraftSource]:
        """What the drafts of verified answers come from: the canvas, and earlier text. Set it for measurements."""
        return self._admission.draft_sources

    @draft_sources.setter
    def draft_sources(self, sources: frozenset[DraftSource]) -> None:
        self._admission.draft_sources = sources

    def facts(self) -> EngineFacts:
        """Facts to plan requests with.

        Raises:
            CheckpointError: the checkpoint is missing or unusable.
        """
        description = self._parts.description
        return EngineFacts(
            model=self.spec.model,
            context_window=self.context_window,
            max_new_tokens=self.default_max_new_tokens,
            canvas_length=self.canvas_length,
            images=description.config.vision_config is not None,
            decoding=description.decoding,
        )

    def count_tokens(self, prompt: Prompt, tools: Tools | None = None, *, thinking: bool = False) -> int:
        """Tokens of the rendered prompt, with those of images.

        Raises:
            ValueError, CheckpointError: as :meth:`submit`.
        """
        request = Request(prompt, tools=tools or (), thinking=thinking)
        return len(self._admission.render(request.prompt, request.tools, thinking).ids)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text, without a beginning-of-sequence token. A control token typed in it stays text."""
        return self._parts.template.plain(text)

    def encode_markup(self, text: str) -> list[int]:
        """Token ids of a prompt that already has the chat template's markup, for :meth:`submit`.

        Control tokens in ``text`` are active. Give it trusted text only, never a document.
        """
        return self._parts.template.markup(text)

    def check_settings(self, params: SamplingParams) -> None:
        """Check settings against the checkpoint, as :meth:`submit` does.

        Raises:
            ValueError: a setting that this checkpoint cannot follow; the message names it.
            CheckpointError: the checkpoint is missing or unusable.
        """
        self._parts.description.defaults.with_params(params)

    def prepare_images(self, images: Iterable[Image]) -> None:
        """Preprocess images now, so that a later :meth:`submit` of messages with them returns at once.

        Call it on a thread, to keep an event loop free. Results do not change. The patches are kept for a while.

        Raises:
            ValueError, CheckpointError, ImportError: as :meth:`submit`.
        """
        for image in images:
            self._parts.images.patches(image)
