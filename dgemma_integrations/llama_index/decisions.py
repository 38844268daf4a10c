"""What the selector, the reranker and the evaluators share: asking one LLM's engine typed questions, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

from llama_index.core.settings import Settings

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.protocol import Engine
from dgemma_core.api.questions import Answer, Question
from dgemma_core.errors import ContextOverflowError, QueueFullError
from dgemma_integrations.llama_index.concurrency import together
from dgemma_integrations.llama_index.llm import DiffusionGemma
from dgemma_integrations.llama_index.long_texts import LongText, split_text

# A piece of a text with fewer tokens says too little to be judged: the questions themselves are too long then.
_SHORTEST_PIECE = 16


def resolve_llm(llm: Any, owner: str) -> DiffusionGemma:
    """The LLM to ask: the given one, else ``Settings.llm``.

    Raises:
        ValueError: there is none, or it has no engine that can decide.
    """
    remedy = f"pass {owner}(llm=DiffusionGemma(...)), or set Settings.llm to one"
    if llm is None:
        try:
            llm = Settings.llm
        except (ImportError, ValueError) as error:  # Nothing is set, and LlamaIndex's own default is not installed.
            raise ValueError(f"llm=None and Settings.llm is not usable: {remedy}") from error
    if not isinstance(llm, DiffusionGemma):
        raise ValueError(f"llm={type(llm).__name__}: {owner} reads label probabilities of a DiffusionGemma; {remedy}")
    return llm


class Decisions:
    """Asks an engine questions for one operation of a component; belongs to the event loop it is used on.

    Args:
        engine: loaded.
        seed: of the noise.
        draws: noise draws to average over, one denoising step each.
        calibration: scales the probabilities.
        timeout: seconds for each request.
        limit: questions in the engine's hands at a time; it batches as many of them as fit.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        seed: int,
        draws: int = 1,
        calibration: Calibration | None = None,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> None:
        self._engine = engine
        self._options: dict[str, Any] = {"seed": seed, "draws": draws, "calibration": calibration, "timeout": timeout}
        self._turns = asyncio.Semaphore(min(limit or engine.spec.max_queue, engine.spec.max_queue))
        self._under_way = 0

    @classmethod
    async def open(
        cls, llm: DiffusionGemma, draws: int = 1, calibration: Calibration | None = None, limit: int | None = None
    ) -> Decisions:
        """For the LLM's engine, with its seed and timeout; loads the weights without blocking the event loop."""
        # The first use of an engine in a process imports torch, which takes seconds.
        engine = await asyncio.to_thread(lambda: llm.engine)
        await engine.aload()
        seed = 0 if llm.seed is None else llm.seed
        return cls(engine, seed=seed, draws=draws, calibration=calibration, timeout=llm.timeout, limit=limit)

    async def ask(self, context: str, questions: Mapping[str, Question]) -> dict[str, Answer]:
        """Answers to questions about one context, read in one denoising step.

        Raises:
            ContextOverflowError: context and questions do not fit the window.
            DGemmaError: as ``Engine.adecide``.
        """
        async with self._turns:
            self._under_way += 1
            try:
                return await self._ask(context, questions)
            finally:
                self._under_way -= 1

    async def _ask(self, context: str, questions: Mapping[str, Question]) -> dict[str, Answer]:
        # As long as others of ours are under way there will be room in the queue. The first one is refused where the
        # queue is full, unless others that were begun later got ahead of it.
        ask = partial(self._engine.adecide, context, questions, **self._options)
        try:
            return await ask(wait=self._under_way > 1)
        except QueueFullError:
            if self._under_way == 1:
                raise
            return await ask(wait=True)

    async def ask_long(
        self, context: str, questions: Mapping[str, Question], long_text: LongText
    ) -> list[dict[str, Answer]]:
        """:meth:`ask` about a text of any length.

        Args:
            context: the text.
            questions: by name.
            long_text: for a text that does not fit the window: ``"truncate"`` asks about its beginning, ``"split"``
                about each of its parts, ``"error"`` raises.

        Returns:
            The answers for each part that was asked about.

        Raises:
            ContextOverflowError: with ``"error"``, or the questions alone do not fit.
        """
        try:
            return [await self.ask(context, questions)]
        except ContextOverflowError as error:
            if long_text == "error":
                error.add_note("Shorten the text, or choose long_text='truncate' or 'split'.")
                raise
            overflow = error
        excess = overflow.prompt_tokens + overflow.max_new_tokens - overflow.context_window
        room = len(self._engine.encode_text(context)) - excess
        while room >= _SHORTEST_PIECE:
            pieces = islice(split_text(self._engine, context, room), 1 if long_text == "truncate" else None)
            parts = await asyncio.to_thread(list, pieces)
            try:
                return await together(self.ask(part, questions) for part in parts)
            except ContextOverflowError as error:
                # A text and what surrounds it may take a few tokens more together than alone.
                overflow = error
                room -= error.prompt_tokens + error.max_new_tokens - error.context_window
        overflow.add_note("The questions alone leave no room for the text: shorten them.")
        raise overflow
