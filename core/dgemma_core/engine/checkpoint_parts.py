"""The parts of a checkpoint that work on the host. Each is made at its first use."""

from __future__ import annotations

import asyncio
import threading

from dgemma_core.api.aside import call_aside
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.chat.image_patches import ImagePreprocessor
from dgemma_core.chat.template import ChatTemplate
from dgemma_core.checkpoint.description import CheckpointDescription, read_description
from dgemma_core.engine.without_effect import TemplateWarnings, tell_limits
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.matcher import GrammarCompiler


class CheckpointParts:
    """Description, chat template, image preprocessor and grammar compiler of one checkpoint. Thread-safe.

    Args:
        spec: which checkpoint.
    """

    def __init__(self, spec: LoadSpec) -> None:
        self._spec = spec
        self._description: CheckpointDescription | None = None
        self._template: ChatTemplate | None = None
        self._template_warnings: TemplateWarnings | None = None
        self.renew_locks()

    def renew_locks(self) -> None:
        """In a forked child: make new locks. The old ones may be held by a thread that exists in the parent only."""
        self._lock = threading.Lock()
        # Locks of their own, so that requests without grammar and images need not wait for them.
        self._compiler_lock = threading.Lock()
        self._images_lock = threading.Lock()
        # These hold locks, too, so they are made again at the next use.
        self._images: ImagePreprocessor | None = None
        self._compiler: GrammarCompiler | None = None

    def adopt(self, description: CheckpointDescription) -> None:
        """Use this description instead of the checkpoint's files."""
        tell_limits(self._spec, description)
        self._description = description

    @property
    def description(self) -> CheckpointDescription:
        """Tokenizer, configuration and defaults.

        Raises:
            CheckpointError: the checkpoint is missing or unusable.
        """
        return self._description or call_aside(self._read_description)

    @property
    def template(self) -> ChatTemplate:
        """Messages -> token ids. With a large vocabulary the first use takes a while."""
        return self._template or call_aside(self._make_template)

    @property
    def template_warnings(self) -> TemplateWarnings:
        """Warnings of what the chat template leaves out."""
        if self._template_warnings is None:
            template = self.description.tokenizer.chat_template
            self._template_warnings = TemplateWarnings(template if isinstance(template, str) else None)
        return self._template_warnings

    @property
    def images(self) -> ImagePreprocessor:
        """Images -> patches.

        Raises:
            CheckpointError: the checkpoint cannot take images.
            ImportError: Pillow is not installed.
        """
        return self._images or call_aside(self._make_images)

    @property
    def compiler(self) -> GrammarCompiler:
        """Grammars -> matchers. With a large vocabulary the first use takes a while."""
        return self._compiler or call_aside(self._make_compiler)

    async def aopen(self) -> None:
        """Read the small files and prepare the template, without blocking the event loop."""
        if self._template is None:
            await asyncio.to_thread(lambda: self.template)

    # Each imports modules, so Ctrl-C must not interrupt it.

    def _read_description(self) -> CheckpointDescription:
        with self._lock:
            if self._description is None:
                description = read_description(self._spec)
                tell_limits(self._spec, description)
                self._description = description
            return self._description

    def _make_template(self) -> ChatTemplate:
        description = self.description
        with self._lock:
            if self._template is None:
                self._template = ChatTemplate(description.tokenizer)
            return self._template

    def _make_images(self) -> ImagePreprocessor:
        description = self.description
        with self._images_lock:
            if self._images is None:
                self._images = ImagePreprocessor(description.config, description.folder)
            return self._images

    def _make_compiler(self) -> GrammarCompiler:
        description = self.description
        with self._compiler_lock:
            if self._compiler is None:
                template = self.template
                self._compiler = GrammarCompiler(
                    Alphabet(
                        description.tokenizer,
                        description.vocab_size,
                        description.end_ids,
                        frozenset(template.controls),
                        template.plain,
                    )
                )
            return self._compiler
