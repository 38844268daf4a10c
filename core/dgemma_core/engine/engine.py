"""The engine: one set of weights, many requests batched step by step."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.events import Generation
from dgemma_core.api.grammar import Grammar
from dgemma_core.api.handle import RequestHandle, submit_in_thread
from dgemma_core.api.images import Image
from dgemma_core.api.infilling import Hole, Infilled
from dgemma_core.api.messages import Message
from dgemma_core.api.params import SamplingParams, check_timeout
from dgemma_core.api.protocol import EngineFacts
from dgemma_core.api.questions import Answer, Question
from dgemma_core.api.request import Prompt, Request, Tools
from dgemma_core.api.spec import LoadSpec
from dgemma_core.api.usage import EngineStats
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.chat.template import ChatTemplate, Rendered
from dgemma_core.checkpoint.weights import FrontDoor, Progress, front_door, load_weights, open_front_door
from dgemma_core.denoise.canvas import DenoiseSettings
from dgemma_core.denoise.guide import Guide
from dgemma_core.engine.sequence import Sequence
from dgemma_core.engine.worker import Loaded, Worker
from dgemma_core.errors import (
    CheckpointError,
    ContextOverflowError,
    DGemmaError,
    EngineClosedError,
    OutOfMemoryError,
    QueueFullError,
)
from dgemma_core.execution.eager import ModelRunner
from dgemma_core.execution.kv_cache import PrefixCache
from dgemma_core.execution.memory import is_out_of_memory
from dgemma_core.execution.vision import ImagePreprocessor
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.cursor import GrammarCursor
from dgemma_core.structured.decision_guide import DecisionGuide, read_answers
from dgemma_core.structured.decisions import Ask, plan_asks
from dgemma_core.structured.forms import FormWriter
from dgemma_core.structured.grammar_guide import GrammarGuide
from dgemma_core.structured.hints import string_hints
from dgemma_core.structured.infill_guide import InfillGuide
from dgemma_core.structured.infilling import Filling, check_params, hole_tokens, join, lay_out
from dgemma_core.structured.matcher import GrammarCompiler
from dgemma_core.structured.tool_grammar import tool_grammar

# One forward pass: enough to fill the device, little enough that a step stays short.
_BATCH_TOKENS_CPU = 4096
_BATCH_TOKENS_ACCELERATOR = 16384

# Characters of a prompt, which take some ten milliseconds to tokenize.
_LONG = 20_000

_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    r"""Runs one set of weights for any number of threads and event loops.

    Nothing is loaded by the constructor. Tokenizer and configuration are read by the first call that needs them, the
    weights by the worker thread on the first request (or :meth:`load`).

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

    _shared: ClassVar[dict[LoadSpec, Engine]] = {}
    _shared_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, spec: LoadSpec | None = None) -> None:
        self.spec = spec or LoadSpec()
        self._model: Any = None
        self._front: FrontDoor | None = None
        self._template: ChatTemplate | None = None
        self._images: ImagePreprocessor | None = None
        self._compiler: GrammarCompiler | None = None
        self._renew_locks()
        self._references = 0
        self._closed = False
        self._in_memory = False
        self._progress: Progress | None = None
        self._worker = Worker(_Loader(self), self.spec.max_queue, name=f"dgemma-{self.spec.model}")
        # The worker must not keep a forgotten engine alive, nor outlive it.
        weakref.finalize(self, Worker.close, self._worker, 0)
        _workers.add(self._worker)
        _engines.add(self)

    @classmethod
    def shared(cls, spec: LoadSpec | None = None) -> Engine:
        """The process-wide engine of ``spec``: the same object for equal specs.

        Every call takes a reference and :meth:`close` gives one back; the last one closes the engine.
        """
        spec = spec or LoadSpec()
        with cls._shared_lock:
            engine = cls._shared.get(spec)
            if engine is None or engine.closed:
                engine = cls._shared[spec] = cls(spec)
            engine._references += 1
            return engine

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, **options: Any) -> Engine:
        """An engine around an already loaded ``DiffusionGemmaForBlockDiffusion``.

        Args:
            model: the model; it is put into eval mode and must not be used elsewhere while the engine runs.
            tokenizer: its fast tokenizer, with a chat template if messages are to be used.
            options: ``max_context``, ``max_batch_tokens``, ``max_queue``, ``prefix_cache_bytes`` as in ``LoadSpec``.

        Raises:
            ValueError: not such a model, or an unknown option.
        """
        from transformers import DiffusionGemmaForBlockDiffusion

        if not isinstance(model, DiffusionGemmaForBlockDiffusion):
            raise ValueError(f"model={type(model).__name__}: must be a DiffusionGemmaForBlockDiffusion")
        known = ("max_context", "max_batch_tokens", "max_queue", "prefix_cache_bytes")
        for name in options:
            if name not in known:
                raise ValueError(f"unknown option {name!r}: from_model takes {', '.join(known)}")
        engine = cls(LoadSpec(model=model.name_or_path or type(model).__name__, **options))
        engine._model = model.eval()
        engine._in_memory = True
        engine._front = front_door(tokenizer, model.config, model.generation_config)
        return engine

    # Loading.

    @property
    def closed(self) -> bool:
        """Whether the engine takes no more requests: it was closed, its weights did not load, or its worker died."""
        return self._closed or self._worker.ended

    @property
    def in_memory(self) -> bool:
        """Whether the engine wraps a model that was handed over, so that its spec alone cannot make it again."""
        return self._in_memory

    def load(self, progress: Progress | None = None) -> None:
        """Load the weights now and block until they are in. Idempotent.

        Args:
            progress: called with a line of text at every stage, from the worker thread.

        Raises:
            CheckpointError: nothing usable there.
            OutOfMemoryError: the weights do not fit into memory.
        """
        self._begin_loading(progress)
        self._worker.ready.result()

    async def aload(self, progress: Progress | None = None) -> None:
        """:meth:`load` without blocking the event loop."""
        self._begin_loading(progress)
        await asyncio.wrap_future(self._worker.ready)

    def _begin_loading(self, progress: Progress | None) -> None:
        self._check_open()
        if not self._worker.ready.done():
            self._progress = progress or self._progress
            self._worker.start()

    # Facts about the checkpoint; none of these reads weights.

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's ``PreTrainedTokenizerFast``."""
        return self._open_front().tokenizer

    @property
    def context_window(self) -> int:
        """Tokens of prompt plus answer."""
        return self._open_front().context_window(self.spec.max_context)

    @property
    def default_max_new_tokens(self) -> int:
        """Answer tokens when a request does not say."""
        return self._open_front().max_new_tokens

    @property
    def canvas_length(self) -> int:
        """Positions denoised together unless a request asks for fewer."""
        return self._open_front().defaults.canvas_length

    def facts(self) -> EngineFacts:
        """What callers plan with.

        Raises:
            CheckpointError: nothing usable there.
        """
        images = self._open_front().config.vision_config is not None
        return EngineFacts(
            self.spec.model, self.context_window, self.default_max_new_tokens, self.canvas_length, images
        )

    def count_tokens(self, prompt: Prompt, tools: Tools | None = None, *, thinking: bool = False) -> int:
        """Tokens the rendered prompt takes, those of images included.

        Raises:
            ValueError, CheckpointError: as :meth:`submit`.
        """
        request = Request(prompt, tools=tools or (), thinking=thinking)
        return len(self._rendered(request.prompt, request.tools, thinking).ids)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text, without a beginning-of-sequence token; control tokens' spellings stay characters."""
        return self._chat_template().plain(text)

    def encode_markup(self, text: str) -> list[int]:
        """Token ids of a prompt that already carries the chat template's markup, for :meth:`submit`.

        Control tokens in ``text`` are active: give it trusted text only, never a document.
        """
        return self._chat_template().markup(text)

    # Requests.

    def check_settings(self, params: SamplingParams) -> None:
        """Raise what :meth:`submit` would raise for settings that this checkpoint cannot follow.

        Raises:
            ValueError: naming the setting.
            CheckpointError: nothing usable there.
        """
        self._open_front().settings(params)

    def prepare_images(self, images: Iterable[Image]) -> None:
        """Preprocess images now, so that a following :meth:`submit` of messages that hold them returns at once.

        For a thread beside an event loop; without effect on results. What was prepared is kept for a while.

        Raises:
            ValueError, CheckpointError, ImportError: as :meth:`submit`.
        """
        for image in images:
            self._image_preprocessor().patches(image)

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

        A grammar, or tools, seen for the first time are compiled here; on an event loop use :meth:`asubmit`.

        Args:
            prompt: raw text, token ids, or chat messages (rendered by the checkpoint's template), which may hold
                images. Control tokens typed in text stay text. Or a whole :class:`Request`; then only ``wait`` may be
                given beside it.
            params: sampling parameters; the checkpoint's defaults if not given.
            tools: OpenAI function dicts the template declares to the model; only with messages.
            tool_choice: ``"auto"`` (the default with tools: the model may call some), ``"none"``, ``"any"`` or
                ``"required"`` (it must call one), or the name of the tool it must call. A call always fits its tool's
                schema. With ``params.grammar`` an answer either calls tools or fits it.
            parallel_tool_calls: whether one answer may hold several calls.
            thinking: ask the model to think before it answers, as far as its chat template knows how; only with
                messages. The thoughts are in ``Generation.reasoning`` and count as tokens of the answer. Of grammars
                only JSON ones leave room for thoughts.
            timeout: seconds, once the weights are loaded, after which the request is dropped with
                ``RequestTimeoutError``.
            wait: where the queue is full, block until there is room.

        Raises:
            ValueError: bad prompt, parameter or tool choice, naming it.
            GrammarError: a grammar that cannot be used, or (``AnswerBudgetError``) an answer too short for it.
            ContextOverflowError: prompt plus answer do not fit the window.
            QueueFullError, EngineClosedError: nothing was queued.
            CheckpointError: nothing usable there, or images for a checkpoint that takes none.
        """
        self._check_open()
        if isinstance(prompt, Request):
            if (params, tools, tool_choice, parallel_tool_calls, thinking, timeout) != (
                None,
                None,
                None,
                True,
                False,
                None,
            ):
                raise ValueError("prompt is a Request: put params, tools and the other settings into it")
            request = prompt
        else:
            params = SamplingParams() if params is None else params
            request = Request(prompt, params, tools or (), tool_choice, parallel_tool_calls, thinking, timeout)
        return self._submit(request, wait)

    async def asubmit(self, request: Request, /, *, wait: bool = False) -> RequestHandle:
        """:meth:`submit` without blocking the event loop, whatever the request takes to prepare.

        A task that is cancelled meanwhile leaves no request behind.

        Args:
            request: what to answer.
            wait: where the queue is full, wait until there is room.

        Raises:
            ValueError, DGemmaError: as :meth:`submit`.
        """
        await self._aopen()
        if _is_quick(request):
            try:
                return self.submit(request)
            except QueueFullError:
                if not wait:
                    raise
        return await submit_in_thread(lambda: self.submit(request, wait=wait))

    def _submit(self, request: Request, wait: bool) -> RequestHandle:
        params, tools = request.params, request.tools
        front = self._open_front()
        rendered = self._rendered(request.prompt, tools, request.thinking)
        room = self._answer_room(len(rendered.ids), params.max_new_tokens)
        grammar = _answer_grammar(params, tools, request.tool_choice, request.parallel_tool_calls, request.thinking)
        guide = None if grammar is None else self._grammar_guide(grammar, room)
        sequence = self._sequence(rendered, front.settings(params), params, room, guide, request.timeout)
        self._worker.submit(sequence, wait=wait)
        return sequence.handle

    def _sequence(
        self,
        prompt: Rendered,
        settings: DenoiseSettings,
        params: SamplingParams,
        room: int,
        guide: Guide | None,
        timeout: float | None = None,
    ) -> Sequence:
        return Sequence(
            handle=RequestHandle(self._cancel),
            prompt=prompt.ids,
            settings=settings,
            max_new_tokens=room,
            detokenizer=Detokenizer(self._open_front().tokenizer, params.stop),
            seed=params.seed,
            drafts=params.drafts,
            timeout=timeout,
            guide=guide,
            images=[self._image_preprocessor().place(span) for span in prompt.spans],
        )

    def generate(
        self, prompts: Seq[Prompt], params: SamplingParams | None = None, *, tools: Tools | None = None
    ) -> list[Generation]:
        """Answer many prompts together; results in the prompts' order.

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
                # Where the queue is full, one of our own earlier requests makes room.
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
    ) -> dict[str, Answer]:
        """Answer typed questions about a context in one denoising step.

        Args:
            context: a text, or chat messages. The prompt is the context and the options, questions stand in the canvas:
                later calls with the same context reuse its keys and values.
            questions: by name. More than fit one canvas are spread over several requests.
            draws: noise draws to average over, one denoising step each.
            seed: of the noise.
            calibration: from ``fit_calibration``; without it the probabilities are the model's own and may be far from
                the share of right answers.
            timeout: seconds, once the weights are loaded.

        Returns:
            An :class:`~dgemma_core.structured.decisions.Answer` per name.

        Raises:
            ValueError: bad questions, naming them.
            DGemmaError: as :meth:`submit`.
        """
        with self._decisions(context, questions, draws, seed, timeout) as asked:
            for handle, _, _ in asked:
                handle.result()
        return read_answers(((ask, guide) for _, ask, guide in asked), questions, calibration)

    async def adecide(
        self,
        context: str | Seq[Message],
        questions: Mapping[str, Question],
        *,
        draws: int = 1,
        seed: int | None = 0,
        calibration: Calibration | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- the engine drops the request, not only the wait for it
    ) -> dict[str, Answer]:
        """:meth:`decide` without blocking the event loop."""
        await self._aopen()
        images = [] if isinstance(context, str) else [i for m in context if isinstance(m, Message) for i in m.images]
        if images:
            await asyncio.to_thread(self.prepare_images, images)
        with self._decisions(context, questions, draws, seed, timeout) as asked:
            for handle, _, _ in asked:
                await handle
        return read_answers(((ask, guide) for _, ask, guide in asked), questions, calibration)

    def infill(self, pieces: Seq[str | Hole], params: SamplingParams | None = None) -> Infilled:
        """Fill the holes of a text, with the text on both sides in view.

        Args:
            pieces: texts and holes, e.g. ``["It was built in ", Hole(max_tokens=8), " by workers."]``.
            params: sampling parameters; length, grammar and stops follow from the pieces and must not be given.

        Raises:
            ValueError: bad pieces or parameters, naming them.
            DGemmaError: as :meth:`submit`.
        """
        handle, fillings = self._submit_infill(pieces, params or SamplingParams())
        return self._infilled(pieces, handle.result(), fillings)

    async def ainfill(self, pieces: Seq[str | Hole], params: SamplingParams | None = None) -> Infilled:
        """:meth:`infill` without blocking the event loop."""
        await self._aopen()
        params = params or SamplingParams()
        if any(isinstance(piece, Hole) and piece.grammar is not None for piece in pieces):
            handle, fillings = await submit_in_thread(lambda: self._submit_infill(pieces, params))
        else:
            handle, fillings = self._submit_infill(pieces, params)
        return self._infilled(pieces, await handle, fillings)

    def stats(self) -> EngineStats:
        """A snapshot of the engine's counters."""
        return self._worker.stats()

    def clear_prefix_cache(self) -> int:
        """Forget all cached prefixes; returns the bytes freed. Blocks until the current step is over."""
        return self._worker.clear_prefix_cache()

    def close(self) -> None:
        """Give a shared engine's reference back, or close a private one.

        Closing stops after the current step; open requests end with ``EngineClosedError`` and the memory is freed.
        """
        with self._shared_lock:
            self._references -= 1
            if self._references > 0 or self._closed:
                return
            self._closed = True
            if self._shared.get(self.spec) is self:
                del self._shared[self.spec]
        self._worker.close()
        self._model = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Engine({self.spec!r}{', closed' if self._closed else ''})"

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        # Of its own: meanwhile, requests that need no grammar go on.
        self._compiler_lock = threading.Lock()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError("the engine is closed; make a new one")

    def _cancel(self, handle: RequestHandle) -> None:
        self._worker.cancel(handle)

    def _open_front(self) -> FrontDoor:
        if self._front is not None:
            return self._front
        with self._lock:
            if self._front is None:
                self._front = open_front_door(self.spec)
            return self._front

    def _chat_template(self) -> ChatTemplate:
        if self._template is not None:
            return self._template
        front = self._open_front()
        with self._lock:
            if self._template is None:
                self._template = ChatTemplate(front.tokenizer)
            return self._template

    async def _aopen(self) -> None:
        """Read the small files, and prepare the template, beside the event loop."""
        if self._template is None:
            await asyncio.to_thread(self._chat_template)

    def _image_preprocessor(self) -> ImagePreprocessor:
        if self._images is None:
            # Outside the lock: its imports take seconds, and text requests need not wait for them.
            front = self._open_front()
            self._images = ImagePreprocessor(front.config, front.folder)
        return self._images

    @contextmanager
    def _decisions(
        self,
        context: str | Seq[Message],
        questions: Mapping[str, Question],
        draws: int,
        seed: int | None,
        timeout: float | None,
    ) -> Iterator[list[tuple[RequestHandle, Ask, DecisionGuide]]]:
        """Requests that ask the questions. Whatever way the waiting ends, none is left behind."""
        check_timeout(timeout)
        front = self._open_front()
        writer = FormWriter(self.encode_text, front.end_id, front.pad_id)
        planned: list[tuple[Ask, DecisionGuide, Rendered]] = [
            (ask, DecisionGuide(ask.form, front.pad_id, draws), self._rendered(ask.messages))
            for ask in plan_asks(context, questions, writer, front.canvas_limit)
        ]
        sequences = []
        for ask, guide, prompt in planned:
            length = ask.canvas_length
            params = SamplingParams(max_new_tokens=length, canvas_length=length, seed=seed)
            room = self._answer_room(len(prompt.ids), length)
            sequences.append(self._sequence(prompt, front.settings(params), params, room, guide, timeout))
        self._worker.submit(*sequences)  # At once: they share a step, and the context in it.
        try:
            yield [(s.handle, ask, guide) for s, (ask, guide, _) in zip(sequences, planned, strict=True)]
        finally:
            for sequence in sequences:
                sequence.handle.cancel()  # Without effect on finished ones.

    def _submit_infill(self, pieces: Seq[str | Hole], params: SamplingParams) -> tuple[RequestHandle, list[Filling]]:
        check_params(params)
        front = self._open_front()
        begin = [] if front.tokenizer.bos_token_id is None else [front.tokenizer.bos_token_id]
        closing = front.end_ids | {front.pad_id}
        layout = lay_out(pieces, begin, self.encode_text, partial(self._grammar_cursor, ends=closing))
        length = layout.canvas_length(front.canvas_limit)
        settings = front.settings(replace(params, canvas_length=params.canvas_length or length))
        guide = InfillGuide(layout, front.end_id, front.pad_id)
        room = self._answer_room(len(layout.prompt), layout.room(length))
        sequence = self._sequence(Rendered(layout.prompt), settings, params, room, guide)
        self._worker.submit(sequence)
        return sequence.handle, layout.fillings

    def _infilled(self, pieces: Seq[str | Hole], generation: Generation, fillings: Seq[Filling]) -> Infilled:
        front = self._open_front()
        closing = front.end_ids | {front.pad_id}
        decode = Detokenizer(front.tokenizer).decode
        text, holes = join(pieces, [decode(hole_tokens(f.tokens, closing)) for f in fillings])
        return Infilled(text, holes, generation.usage)

    def _grammar_guide(self, grammar: Grammar, room: int) -> GrammarGuide:
        return GrammarGuide(self._grammar_cursor(grammar, room))

    def _grammar_cursor(self, grammar: Grammar, room: int, ends: frozenset[int] | None = None) -> GrammarCursor:
        compiler = self._grammar_compiler()
        return GrammarCursor(compiler.matcher(grammar), compiler.alphabet, string_hints(grammar.source), room, ends)

    def _grammar_compiler(self) -> GrammarCompiler:
        front = self._open_front()
        with self._compiler_lock:
            if self._compiler is None:
                self._compiler = GrammarCompiler(Alphabet(front.tokenizer, front.vocab_size, front.end_ids))
            return self._compiler

    def _rendered(self, prompt: Prompt, tools: Tools = (), thinking: bool = False) -> Rendered:
        if isinstance(prompt, str):
            return Rendered(self._chat_template().text(prompt))
        messages = [item for item in prompt if isinstance(item, Message)]
        if messages:
            marks = self._image_preprocessor() if any(m.images for m in messages) else None
            return self._chat_template().render(messages, tools, marks, thinking)
        tokens = [item for item in prompt if isinstance(item, int)]
        vocab = self._open_front().vocab_size
        for token in tokens:
            if token >= vocab:
                raise ValueError(f"prompt holds {token!r}: must be a Message or a token id below {vocab}")
        return Rendered(tokens)

    def _answer_room(self, prompt_tokens: int, max_new_tokens: int | None) -> int:
        window = self.context_window
        wanted = max_new_tokens
        if wanted is None:
            # Nobody asked for a length, so the default gives way to a long prompt.
            wanted = max(1, min(self.default_max_new_tokens, window - prompt_tokens))
        if prompt_tokens + wanted > window:
            raise ContextOverflowError(prompt_tokens, wanted, window)
        return wanted


def _is_quick(request: Request) -> bool:
    """Whether a request is queued within a few milliseconds: nothing to compile, to preprocess or to read at length."""
    if request.tools or request.params.grammar is not None:
        return False
    if isinstance(request.prompt, str):
        return len(request.prompt) < _LONG
    messages = request.messages
    return sum(len(m.text) for m in messages) < _LONG and not any(m.images for m in messages)


def _answer_grammar(
    params: SamplingParams, tools: Tools, choice: str | None, parallel: bool, thinking: bool
) -> Grammar | None:
    """What an answer must look like, by its own grammar or by the tools at hand; None where nothing is asked for."""
    if params.grammar is not None:
        calls = tools if tools and choice != "none" else ()
        if not calls and not thinking:
            return params.grammar
        if calls and choice not in (None, "auto"):
            raise ValueError(f"tool_choice={choice!r}: an answer that must call a tool cannot fit a grammar as well")
        return tool_grammar(calls, "auto", parallel, params.grammar)
    if not tools and choice in (None, "none", "auto"):
        return None
    return tool_grammar(tools or (), choice or "auto", parallel)


class _Loader:
    """What the worker calls to get the model; holds the engine weakly so that the thread does not keep it alive."""

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)

    def __call__(self) -> Loaded:
        engine = self._engine()
        if engine is None:
            raise EngineClosedError("the engine was dropped before its weights were loaded")
        spec = engine.spec
        try:
            return self._load(engine)
        except DGemmaError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemoryError(
                    f"the weights of {spec.model!r} do not fit into memory: {error}. Load with quantization, a smaller "
                    "dtype, or on another device."
                ) from error
            raise CheckpointError(f"model={spec.model!r}, device={spec.device!r}: not loaded, {error!r}") from error

    @staticmethod
    def _load(engine: Engine) -> Loaded:
        front = engine._open_front()
        # Takes a while for a large vocabulary: better here than at the first prompt, which may come on an event loop.
        engine._chat_template()
        began = time.monotonic()
        model = engine._model if engine._model is not None else load_weights(engine.spec, front, engine._progress)
        runner = ModelRunner(model, front.end_ids)
        on_cpu = runner.backbone.device.type == "cpu"
        budget = engine.spec.max_batch_tokens or (_BATCH_TOKENS_CPU if on_cpu else _BATCH_TOKENS_ACCELERATOR)
        return Loaded(
            runner=runner,
            prefix_cache=PrefixCache(runner.backbone.layouts, engine.spec.prefix_cache_bytes),
            max_batch_tokens=budget,
            # Canvases shrink while they are denoised, so twice as many as fit whole can share a step.
            max_running=max(1, 2 * budget // front.defaults.canvas_length),
            end_ids=front.end_ids,
            load_s=time.monotonic() - began,
        )


def _close_all() -> None:
    # A daemon thread inside torch while the interpreter goes down can crash the process. Workers, not engines: a thread
    # whose engine was just forgotten may still be on its way out.
    for worker in list(_workers):
        worker.close(timeout=5)


def _after_fork() -> None:
    # Locks another thread held at the fork are held for ever in the child.
    Engine._shared_lock = threading.Lock()
    for engine in list(_engines):
        engine._renew_locks()
    for worker in list(_workers):
        worker.after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
