"""A list of inputs as one call: the engine gets all requests at once, and Ctrl-C or an error cancels them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any, Self

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import BaseModel, PrivateAttr

from dgemma_integrations.shared.blocking import iterate_blocking
from dgemma_integrations.shared.turns import Turns

Configs = RunnableConfig | Sequence[RunnableConfig] | None

# A subclass may answer in its own way with these. LangChain's own batches call them from a pool of threads.
_SYNC_WAYS = ("invoke", "generate", "_generate", "_stream")


class CompletedLists(BaseModel):
    """A runnable whose answers to a list come as they are ready. Each input is a call of ``ainvoke``."""

    # Of the list that this copy serves.
    _turns: Turns | None = PrivateAttr(default=None)

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Answer all inputs together. Yields each index and answer when it is ready.

        Leaving the generator early, Ctrl-C, and the first error cancel the open requests.

        Args:
            inputs: as for `invoke`.
            config: for all inputs, or one for each. `max_concurrency` of the first limits the open requests.
            return_exceptions: yield an input's error instead of raising it.
            kwargs: as for `invoke`.
        """
        if len(inputs) > 1 and not self._answers_in_its_own_way():
            configs = get_config_list(config, len(inputs))
            asked = self._asked(inputs, configs, return_exceptions, kwargs)
            with closing(iterate_blocking(asked)) as answers:
                yield from answers
        else:
            # With one input, this calls invoke() on the caller's thread.
            langchains_way: Any = Runnable.batch_as_completed
            yield from langchains_way(self, inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncGenerator[tuple[int, Any]]:
        """:meth:`batch_as_completed` without blocking the event loop."""
        if inputs:
            configs = get_config_list(config, len(inputs))
            async with aclosing(self._asked(inputs, configs, return_exceptions, kwargs)) as answers:
                async for answer in answers:
                    yield answer

    async def _asked(
        self, inputs: Sequence[Any], configs: Sequence[RunnableConfig], return_exceptions: bool, kwargs: dict[str, Any]
    ) -> AsyncGenerator[tuple[int, Any]]:
        turns = Turns(configs[0].get("max_concurrency"))
        # Its ainvoke is LangChain's. Declared here, it would hide the types of LangChain's own.
        copy: Any = self._with_turns(turns)

        async def ask(index: int) -> tuple[int, Any]:
            async with turns.turn():
                try:
                    return index, await copy.ainvoke(inputs[index], configs[index], **kwargs)
                except Exception as error:
                    if not return_exceptions:
                        raise
                    return index, error

        tasks = [asyncio.create_task(ask(index)) for index in range(len(inputs))]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for open_task in tasks:
                open_task.cancel()
            # Their errors are taken, so that none is reported as never seen.
            await asyncio.gather(*tasks, return_exceptions=True)

    def _with_turns(self, turns: Turns) -> Self:
        copy = self.model_copy()
        copy._turns = turns
        return copy

    def _answers_in_its_own_way(self) -> bool:
        kinds = type(self).__mro__
        ours = next(kind for kind in kinds if kind.__module__.startswith(f"{__package__}."))
        return any(getattr(kinds[0], way, None) is not getattr(ours, way, None) for way in _SYNC_WAYS)


class WholeLists(CompletedLists):
    """A runnable that also answers a list as a whole in this way."""

    def batch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Answer all inputs together; see :meth:`batch_as_completed`. The answers are in the inputs' order."""
        asked = self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        with closing(asked) as answers:  # type: ignore[type-var]
            found = dict(answers)
        return [found[index] for index in range(len(inputs))]

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """:meth:`batch` without blocking the event loop."""
        asked = self.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        async with aclosing(asked) as answers:
            found = {index: answer async for index, answer in answers}
        return [found[index] for index in range(len(inputs))]
