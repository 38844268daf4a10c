"""The interface of an engine. It is the same for an engine in this process and for a remote one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.images import Image
from dgemma_core.api.infilling import Hole, Infilled
from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.messages import Message
from dgemma_core.api.questions import Answer, Question
from dgemma_core.api.request import Prompt, Request, Tools
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.api.usage import EngineStats

Progress = Callable[[str], None]
"""Called with a line of text at every stage of loading."""


@dataclass(frozen=True)
class EngineFacts(JsonForm):
    """Facts about an engine that callers plan their requests with.

    Attributes:
        model: the checkpoint's name.
        context_window: most tokens of prompt plus answer.
        max_new_tokens: most tokens of an answer, by default.
        canvas_length: positions denoised together, by default.
        images: whether messages may hold images.
    """

    model: str
    context_window: int
    max_new_tokens: int
    canvas_length: int
    images: bool


@runtime_checkable
class Engine(Protocol):
    """Answers requests. Every method may be called from any thread and any event loop.

    ``dgemma_core.Engine`` runs the weights in this process.
    """

    @property
    def spec(self) -> LoadSpec:
        """Which weights the engine runs, and how."""

    @property
    def closed(self) -> bool:
        """Whether the engine takes no more requests."""

    @property
    def in_memory(self) -> bool:
        """Whether the engine wraps a model object, so that its spec alone cannot make it again."""

    def facts(self) -> EngineFacts:
        """Facts to plan requests with. Reads no weights.

        Raises:
            CheckpointError: the checkpoint is missing or unusable.
        """

    def validate(self) -> None:
        """Check that the model can be loaded as its spec says. Loads no weights, and downloads small files only.

        Raises:
            CheckpointError: the checkpoint is missing or unusable, or there is no such device.
        """

    def load(self, progress: Progress | None = None) -> None:
        """Make the engine ready to answer, and block until it is. Idempotent.

        Args:
            progress: called with a line of text at every stage.

        Raises:
            DGemmaError: the engine cannot be made ready; the message says why.
        """

    async def aload(self, progress: Progress | None = None) -> None:
        """:meth:`load` without blocking the event loop."""

    def submit(self, request: Request, /, *, wait: bool = False) -> RequestHandle:
        """Queue a request and return without waiting for its answer.

        Args:
            request: what to answer.
            wait: if the queue is full, block until there is room.

        Raises:
            ValueError: the request asks for something that this checkpoint cannot do.
            GrammarError: the grammar cannot be used, or ``max_new_tokens`` is too small for it.
            ContextOverflowError: prompt plus answer do not fit the context window.
            QueueFullError: the queue is full, and ``wait`` is false.
            DGemmaError: the engine takes no more requests.
        """

    async def asubmit(self, request: Request, /, *, wait: bool = False) -> RequestHandle:
        """:meth:`submit` without blocking the event loop, even if the request takes long to prepare."""

    def decide(
        self,
        context: str | Sequence[Message],
        questions: Mapping[str, Question],
        *,
        draws: int = 1,
        seed: int | None = 0,
        calibration: Calibration | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> dict[str, Answer]:
        """Answer typed questions about a context in one denoising step.

        Args:
            context: a text, or chat messages.
            questions: by name.
            draws: noise draws to average over, one denoising step each.
            seed: of the noise.
            calibration: scales the probabilities.
            timeout: seconds after which the questions are dropped; loading the weights does not count.
            wait: if the queue is full, block until there is room.

        Returns:
            The answers by the questions' names.

        Raises:
            ValueError, DGemmaError: as :meth:`submit`.
        """

    async def adecide(
        self,
        context: str | Sequence[Message],
        questions: Mapping[str, Question],
        *,
        draws: int = 1,
        seed: int | None = 0,
        calibration: Calibration | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- the engine drops the request, not only the wait for it
        wait: bool = False,
    ) -> dict[str, Answer]:
        """:meth:`decide` without blocking the event loop."""

    def infill(self, pieces: Sequence[str | Hole], params: SamplingParams | None = None) -> Infilled:
        """Fill the holes of a text. The model sees the text on both sides.

        Args:
            pieces: texts and holes, in order.
            params: sampling parameters; the checkpoint's defaults if not given.

        Raises:
            ValueError, DGemmaError: as :meth:`submit`.
        """

    async def ainfill(self, pieces: Sequence[str | Hole], params: SamplingParams | None = None) -> Infilled:
        """:meth:`infill` without blocking the event loop."""

    def count_tokens(self, prompt: Prompt, tools: Tools | None = None, *, thinking: bool = False) -> int:
        """Tokens of the rendered prompt, with those of images.

        Raises:
            ValueError, DGemmaError: as :meth:`submit`.
        """

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text. A control token typed in it stays text."""

    def encode_markup(self, text: str) -> list[int]:
        """Token ids of a trusted prompt that already has the chat template's markup."""

    def check_settings(self, params: SamplingParams) -> None:
        """Raise the error that :meth:`submit` would raise for settings that this checkpoint cannot follow."""

    def prepare_images(self, images: Iterable[Image]) -> None:
        """Preprocess images now, so that a later :meth:`submit` returns at once. Results do not change."""

    def stats(self) -> EngineStats:
        """A snapshot of the engine's counters."""

    def close(self) -> None:
        """Give a shared engine's reference back, or close a private one."""
