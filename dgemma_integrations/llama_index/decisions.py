"""Asks an LLM's engine many typed questions at a time, for the selector, the reranker and the evaluators."""

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
from dgemma_core.errors import ContextOverflowError
from dgemma_integrations.llama_index.concurrency import together
from dgemma_integrations.llama_index.llm import DiffusionGemma
from dgemma_integrations.llama_index.long_texts import LongText, split_text
from dgemma_integrations.shared.turns import Turns

# Tokens. A shorter piece of a text says too little to be judged; then the questions themselves are too long.
_SHORTEST_PIECE = 16


def resolve_llm(llm: Any, owner: str) -> DiffusionGemma:
    """The LLM to ask: the given one, else ``Settings.llm``.

    Args:
        llm: what the user passed.
        owner: class name of the component, for the message.

    Raises:
        ValueError: there is no LLM, or it is not a ``DiffusionGemma``.
    """
    remedy = f"pass {owner}(llm=DiffusionGemma(...)), or set Settings.llm to one"
    if llm is None:
        try:
            llm = Settings.llm
        except (ImportError, ValueError) as error:  # No LLM is set, and LlamaIndex's own default is not installed.
            raise ValueError(f"llm=None and Settings.llm is not usable: {remedy}") from error
    if not isinstance(llm, DiffusionGemma):
        raise ValueError(f"llm={type(llm).__name__}: {owner} reads label probabilities of a DiffusionGemma; {remedy}")
    return llm


class Decisions:
    """Asks an engine questions for one operation of a component. Belongs to the event loop that uses it.

    Args:
        engine: a loaded engine.
        seed: of the noise.
        draws: noise draws to average over, one denoising step each.
        calibration: scales the probabilities.
        timeout: most seconds for each request.
        limit: requests that are open at a time; the engine batches as many as fit.
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
        self._turns = Turns(min(limit or engine.spec.max_queue, engine.spec.max_queue))

    @classmethod
    async def open(
        cls, llm: DiffusionGemma, draws: int = 1, calibration: Calibration | None = None, limit: int | None = None
    ) -> Decisions:
        """Decisions by an LLM's engine, with the LLM's seed and timeout. Loads the weights off the event loop."""
        # The first use of an engine in a process imports torch, which takes seconds.
        engine = await asyncio.to_thread(lambda: llm.engine)
        await engine.aload()
        seed = 0 if llm.seed is None else llm.seed
        return cls(engine, seed=seed, draws=draws, calibration=calibration, timeout=llm.timeout, limit=limit)

    async def ask(self, context: str, questions: Mapping[str, Question]) -> dict[str, Answer]:
        """Answer questions about one context in one denoising step.

        Raises:
            ContextOverflowError: context and questions do not fit the context window.
            DGemmaError: as ``Engine.adecide``.
        """
        ask = partial(self._engine.adecide, context, questions, **self._options)
        async with self._turns.turn():
            return await self._turns.queue(lambda wait: ask(wait=wait))

    async def ask_long(
        self, context: str, questions: Mapping[str, Question], long_text: LongText
    ) -> list[dict[str, Answer]]:
        """:meth:`ask` about a text of any length.

        Args:
            context: the text.
            questions: by name.
            long_text: what to do if the text does not fit the context window: ``"truncate"`` asks about its beginning,
                ``"split"`` about each of its parts, ``"error"`` raises.

        Returns:
            The answers for each part of the text.

        Raises:
            ContextOverflowError: the text does not fit and ``long_text`` is ``"error"``, or the questions alone do not
                fit.
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
                # A text may take a few more tokens inside the prompt than alone.
                overflow = error
                room -= error.prompt_tokens + error.max_new_tokens - error.context_window
        overflow.add_note("The questions alone leave no room for the text: shorten them.")
        raise overflow
