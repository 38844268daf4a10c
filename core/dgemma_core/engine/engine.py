"""The engine's public methods. One set of weights serves many requests, batched step by step."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from functools import partial
from typing import Any, ClassVar

from dgemma_core.api.aside import call_aside
from dgemma_core.api.calibration import Calibration
from dgemma_core.api.events import Generation
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.infilling import Hole, Infilled
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.messages import Message
from dgemma_core.api.patience import result_of
from dgemma_core.api.protocol import Progress
from dgemma_core.api.questions import Answer, Question
from dgemma_core.api.request import Prompt, Request, Tools
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.api.usage import EngineStats
from dgemma_core.checkpoint.description import describe
from dgemma_core.checkpoint.weights import check_loadable
from dgemma_core.engine.admission import Admission, is_quick
from dgemma_core.engine.checkpoint_parts import CheckpointParts
from dgemma_core.engine.decision_requests import asked
from dgemma_core.engine.given import check_given, checked_spec
from dgemma_core.engine.infill_requests import HoledText, holed_text
from dgemma_core.engine.loading import Loader
from dgemma_core.engine.shared_engines import SharedEngines, register
from dgemma_core.engine.weightless import Weightless
from dgemma_core.engine.worker import Worker
from dgemma_core.errors import EngineClosedError


class Engine(Weightless):
    r"""Runs one set of weights for any number of threads and event loops.

    The constructor loads nothing. The first call that needs tokenizer and configuration reads them. The worker thread
    reads the weights at the first request (or :meth:`load`).

    Args:
        spec: which weights, where and how.

    Example:
        ```python
        from dgemma_core import Engine, LoadSpec, Message, SamplingParams

        with Engine(LoadSpec()) as engine:
            prompt = [Message("user", "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?")]
            print(engine.generate([prompt], SamplingParams(seed=0))[0].text)
        ```
    """

    _shared: ClassVar[SharedEngines[Engine]]

    def __init__(self, spec: LoadSpec | None = None) -> None:
        spec = checked_spec(spec)
        parts = CheckpointParts(spec)
        self._closed = False
        self._in_memory = False
        self._loader = Loader(spec, parts)
        self._worker = Worker(self._loader, spec.max_queue, name=f"dgemma-{spec.model}")
        super().__init__(Admission(parts, spec, weakref.WeakMethod(self._cancel)))
        # The worker must not keep a forgotten engine alive, nor outlive it.
        weakref.finalize(self, Worker.close, self._worker, 0)
        register(self._worker, parts)

    @classmethod
    def shared(cls, spec: LoadSpec | None = None) -> Engine:
        """The process-wide engine of ``spec``: the same object for equal specs.

        Every call takes a reference, and :meth:`close` gives one back. The last :meth:`close` closes the engine.
        """
        return cls._shared.take(checked_spec(spec), cls)

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, **options: Any) -> Engine:
        """An engine around an already loaded ``DiffusionGemmaForBlockDiffusion``.

        Args:
            model: the model; it is put into eval mode and must not be used elsewhere while the engine runs.
            tokenizer: its fast tokenizer, with a chat template if messages are to be used.
            options: ``max_context``, ``max_batch_tokens``, ``max_queue``, ``prefix_cache_bytes``, ``threads`` as in
                ``LoadSpec``.

        Raises:
            ValueError: model or tokenizer have another class, they do not belong together, or an option is unknown.
        """
        call_aside(partial(check_given, model, tokenizer, options))
        spec = LoadSpec(model=model.name_or_path or type(model).__name__, **options)
        description = describe(tokenizer, model.config, model.generation_config)
        engine = cls(spec)
        engine._parts.adopt(description)
        engine._loader.adopt(model.eval())
        engine._in_memory = True
        return engine

    # Loading and closing.

    @property
    def closed(self) -> bool:
        """Whether the engine takes no more requests: it was closed, its weights did not load, or its worker died."""
        return self._closed or self._worker.ended

    @property
    def in_memory(self) -> bool:
        """Whether the engine wraps a model object, so that its spec alone cannot make it again."""
        return self._in_memory

    def validate(self) -> None:
        """Check that the weights can be loaded as the spec says. Loads none, and downloads small files only.

        Raises:
            CheckpointError: the checkpoint is missing or unusable, or the device cannot run it.
        """
        description = self._parts.description
        if not self._in_memory:
            check_loadable(self.spec, description)

    def load(self, progress: Progress | None = None) -> None:
        """Load the weights now and block until they are in. Idempotent.

        Args:
            progress: called with a line of text at every stage, from the worker thread.

        Raises:
            CheckpointError: the checkpoint is missing or unusable.
            OutOfMemoryError: the weights do not fit into memory.
            EngineClosedError: the engine is closed.
        """
        self._begin_loading(progress)
        result_of(self._worker.ready)

    async def aload(self, progress: Progress | None = None) -> None:
        """:meth:`load` without blocking the event loop."""
        self._begin_loading(progress)
        await asyncio.wrap_future(self._worker.ready)

    def close(self) -> None:
        """Give a shared engine's reference back, or close a private one.

        The engine stops after the current step. Open requests end with ``EngineClosedError``, and the memory is freed.
        """
        if not self._shared.give_back(self.spec, self) or self._closed:
            return
        self._closed = True
        self._worker.close()
        self._loader.forget_model()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Engine({self.spec!r}{', closed' if self._closed else ''})"

    # Requests.

    def submit(
        self,
        prompt: Prompt | Request,
        params: SamplingParams | None = None,
        *,
        tools: Tools | None = None,
        tool_choice: str | None = None,
        parallel_tool_calls: bool = True,
        thinking: bool = False,
        timeout: float | None = None,
        wait: bool = False,
    ) -> RequestHandle:
        """Queue a request and return without waiting for its answer.

        A new grammar, or new tools, are compiled here. On an event loop use :meth:`asubmit`.

        Args:
            prompt: raw text, token ids, or chat messages, which may hold images. The checkpoint's chat template renders
                messages. Control tokens typed in text stay text. Or a whole :class:`Request`, with no other argument
                than ``wait``.
            params: sampling parameters; the checkpoint's defaults if not given.
            tools: OpenAI function dicts that the chat template declares to the model; only with messages. An answer to
                messages without tools holds no calls.
            tool_choice: ``"auto"`` (the default with tools: the model may call some), ``"none"``, ``"any"`` or
                ``"required"`` (it must call one), or the name of the tool it must call. A call always fits its tool's
                schema. With ``params.grammar`` an answer either calls tools or fits it.
            parallel_tool_calls: whether one answer may hold several calls.
            thinking: ask the model to think before it answers, if its chat template can; only with messages. The
                thoughts are in ``Generation.reasoning`` and count as tokens of the answer. With a grammar, thinking
                needs a JSON grammar.
            timeout: seconds after which the request is dropped with ``RequestTimeoutError``; loading the weights does
                not count.
            wait: if the queue is full, block until there is room.

        Raises:
            ValueError: a bad prompt, parameter or tool choice; the message names it.
            GrammarError: the grammar cannot be used, or (``AnswerBudgetError``) ``max_new_tokens`` is too small for it.
            ContextOverflowError: prompt plus answer do not fit the context window.
            QueueFullError: the queue is full, and ``wait`` is false.
            EngineClosedError: the engine is closed.
            CheckpointError: the checkpoint is missing or unusable, or takes no images.
        """
        self._check_open()
        if isinstance(prompt, Request):
            others = (params, tools, tool_choice, parallel_tool_calls, thinking, timeout)
            if others != (None, None, None, True, False, None):
                raise ValueError("prompt is a Request: put params, tools and the other settings into it")
            request = prompt
        else:
            params = SamplingParams() if params is None else params
            request = Request(prompt, params, tools or (), tool_choice, parallel_tool_calls, thinking, timeout)
        sequence = self._admission.sequence(request)
        self._worker.submit(sequence, wait=wait)
        return sequence.handle

    async def asubmit(self, request: Request, /, *, wait: bool = False) -> RequestHandle:
        """:meth:`submit` without blocking the event loop, even if the request takes long to prepare.

        If the task is cancelled meanwhile, the request is cancelled too.

        Args:
            request: what to answer.
            wait: if the queue is full, wait until there is room.

        Raises:
            ValueError, DGemmaError: as :meth:`submit`.
        """
        await self._parts.aopen()
        self._check_open()
        # A grammar or a long prompt takes too long for an event loop. The thread queues nothing, so nothing is left if
        # the task is cancelled or its loop is closed meanwhile.
        prepare = self._admission.sequence
        sequence = prepare(request) if is_quick(request) else await asyncio.to_thread(prepare, request)
        await self._worker.asubmit(sequence, wait=wait)
        return sequence.handle

    def generate(
        self, prompts: Seq[Prompt], params: SamplingParams | None = None, *, tools: Tools | None = None
    ) -> list[Generation]:
        """Answer many prompts together. The results are in the prompts' order.

        Args:
            prompts: a list of prompts, each as in :meth:`submit`.
            params: for all of them.
            tools: for all of them.

        Raises:
            ValueError: ``prompts`` is not a list of prompts.
            DGemmaError: the first request that failed; the others are cancelled.
        """
        if isinstance(prompts, str) or (len(prompts) and isinstance(prompts[0], int | Message)):
            raise ValueError("prompts must be a list of prompts; for a single one write [prompt]")
        handles: list[RequestHandle] = []
        try:
            for prompt in prompts:
                # With a request of our own in the queue, waiting for room always ends.
                handles.append(self.submit(prompt, params, tools=tools, wait=bool(handles)))
            return [handle.result() for handle in handles]
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise

    def decide(
        self,
        context: str | Seq[Message],
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
            context: a text, or chat messages. The prompt holds the context and the options, and the canvas holds the
                questions. So later calls with the same context reuse its keys and values.
            questions: by name. If they do not fit one canvas, they are spread over several requests.
            draws: noise draws to average over, one denoising step each.
            seed: of the noise.
            calibration: from ``fit_calibration``. Without it the probabilities are the model's own, which may be far
                from the share of right answers.
            timeout: seconds after which the questions are dropped; loading the weights does not count.
            wait: if the queue is full, block until there is room.

        Returns:
            An :class:`~dgemma_core.api.questions.Answer` per name.

        Raises:
            ValueError: bad questions; the message names them.
            DGemmaError: as :meth:`submit`.
        """
        self._check_open()
        asking = asked(self._admission, context, questions, draws, seed, timeout)
        try:
            self._worker.submit(*asking.sequences, wait=wait)
            for handle in asking.handles:
                handle.result()
        finally:
            asking.cancel()
        return asking.answers(calibration)

    async def adecide(
        self,
        context: str | Seq[Message],
        questions: Mapping[str, Question],
        *,
        draws: int = 1,
        seed: int | None = 0,
        calibration: Calibration | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- the engine drops the request, not only the wait for it
        wait: bool = False,
    ) -> dict[str, Answer]:
        """:meth:`decide` without blocking the event loop."""
        await self._parts.aopen()
        self._check_open()
        images = [] if isinstance(context, str) else [i for m in context if isinstance(m, Message) for i in m.images]
        if images:
            await asyncio.to_thread(self.prepare_images, images)
        asking = asked(self._admission, context, questions, draws, seed, timeout)
        try:
            await self._worker.asubmit(*asking.sequences, wait=wait)
            for handle in asking.handles:
                await handle
        finally:
            asking.cancel()
        return asking.answers(calibration)

    def infill(self, pieces: Seq[str | Hole], params: SamplingParams | None = None) -> Infilled:
        """Fill the holes of a text. The model sees the text on both sides.

        Args:
            pieces: texts and holes, e.g. ``["It was built in ", Hole(max_tokens=8), " by workers."]``.
            params: sampling parameters, without length, grammar and stops, which follow from the pieces.

        Raises:
            ValueError: bad pieces or parameters; the message names them.
            DGemmaError: as :meth:`submit`.
        """
        text = self._holed(pieces, params)
        try:
            self._worker.submit(text.sequence)
            return text.infilled(text.sequence.handle.result())
        finally:
            text.cancel()

    async def ainfill(self, pieces: Seq[str | Hole], params: SamplingParams | None = None) -> Infilled:
        """:meth:`infill` without blocking the event loop."""
        await self._parts.aopen()
        if any(isinstance(piece, Hole) and piece.grammar is not None for piece in pieces):
            text = await asyncio.to_thread(self._holed, pieces, params)
        else:
            text = self._holed(pieces, params)
        try:
            self._worker.submit(text.sequence)
            return text.infilled(await text.sequence.handle)
        finally:
            text.cancel()

    def stats(self) -> EngineStats:
        """A snapshot of the engine's counters."""
        return self._worker.stats()

    def clear_prefix_cache(self) -> int:
        """Forget all cached prefixes. Blocks until the current step is over.

        Returns:
            Bytes freed.
        """
        return self._worker.clear_prefix_cache()

    def _cancel(self, handle: RequestHandle) -> None:
        self._worker.cancel(handle)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError("the engine is closed; make a new one")

    def _begin_loading(self, progress: Progress | None) -> None:
        self._check_open()
        if not self._worker.ready.done():
            self._loader.progress = progress or self._loader.progress
            self._worker.start()

    def _holed(self, pieces: Seq[str | Hole], params: SamplingParams | None) -> HoledText:
        self._check_open()
        return holed_text(self._admission, pieces, params or SamplingParams())


Engine._shared = SharedEngines()
