"""What an engine can say of its checkpoint without weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dgemma_core.api.images import Image
from dgemma_core.api.params import SamplingParams
from dgemma_core.api.protocol import EngineFacts
from dgemma_core.api.request import Prompt, Request, Tools
from dgemma_core.engine.admission import Admission


class HostSide:
    """Facts, tokens and checks. Reads the checkpoint's small files at the first call that needs them.

    Args:
        admission: of the engine.
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
        """Tokens of prompt plus answer."""
        return self._admission.context_window

    @property
    def default_max_new_tokens(self) -> int:
        """Answer tokens when a request does not say."""
        return self._parts.description.max_new_tokens

    @property
    def canvas_length(self) -> int:
        """Positions denoised together unless a request asks for fewer."""
        return self._parts.description.canvas_limit

    def facts(self) -> EngineFacts:
        """What callers plan with.

        Raises:
            CheckpointError: nothing usable there.
        """
        images = self._parts.description.config.vision_config is not None
        return EngineFacts(
            self.spec.model, self.context_window, self.default_max_new_tokens, self.canvas_length, images
        )

    def count_tokens(self, prompt: Prompt, tools: Tools | None = None, *, thinking: bool = False) -> int:
        """Tokens the rendered prompt takes, those of images included.

        Raises:
            ValueError, CheckpointError: as :meth:`submit`.
        """
        request = Request(prompt, tools=tools or (), thinking=thinking)
        return len(self._admission.render(request.prompt, request.tools, thinking).ids)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text, without a beginning-of-sequence token; control tokens' spellings stay characters."""
        return self._parts.template.plain(text)

    def encode_markup(self, text: str) -> list[int]:
        """Token ids of a prompt that already carries the chat template's markup, for :meth:`submit`.

        Control tokens in ``text`` are active: give it trusted text only, never a document.
        """
        return self._parts.template.markup(text)

    def check_settings(self, params: SamplingParams) -> None:
        """Raise what :meth:`submit` would raise for settings that this checkpoint cannot follow.

        Raises:
            ValueError: naming the setting.
            CheckpointError: nothing usable there.
        """
        self._parts.description.defaults.with_params(params)

    def prepare_images(self, images: Iterable[Image]) -> None:
        """Preprocess images now, so that a following :meth:`submit` of messages that hold them returns at once.

        For a thread beside an event loop; without effect on results. What was prepared is kept for a while.

        Raises:
            ValueError, CheckpointError, ImportError: as :meth:`submit`.
        """
        for image in images:
            self._parts.images.patches(image)
