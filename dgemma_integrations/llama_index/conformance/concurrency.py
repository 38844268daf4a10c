"""Threads, event loops, cancelling."""

from __future__ import annotations

import asyncio
import itertools
import time
from functools import partial

import pytest
from llama_index.core.llms.llm import LLM

from .base import needs
from .calls import STREAMS, each_async, run, text_of, together, within
from .leaving import LeavingTests


class ConcurrencyTests(LeavingTests):
    """Many callers at once, and callers that leave."""

    @property
    def _prompts(self) -> tuple[str, ...]:
        return self.other_prompts

    def _expect(self, llm: LLM, texts: list[str], endpoint: str) -> None:
        assert all(text.strip() for text in texts), texts
        if self.is_deterministic:
            assert texts == [self._alone(llm, endpoint, prompt) for prompt in self._prompts]

    def _alone(self, llm: LLM, endpoint: str, prompt: str) -> str:
        """The LLM's answer when nobody else asks. It is asked once per class."""
        answers = vars(type(self)).get("_answers_alone")
        if answers is None:
            answers = {}
            type(self)._answers_alone = answers  # type: ignore[attr-defined]
        key = (endpoint, prompt)
        if key not in answers:
            answers[key] = self.answer(llm, endpoint, prompt)
        return str(answers[key])

    # --- the event loop ---

    @needs("has_native_async")
    @each_async
    def test_event_loop_goes_on(self, endpoint: str) -> None:
        """Fails: a server answers nobody else while the model works, and agents and extractors run one call at a time.
        ``CustomLLM`` has this fault, because its ``achat`` calls ``chat``.
        """
        llm = self.make_slow()
        run(self.acall(llm, endpoint, **self.limit(2)))
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.001)

        async def work() -> tuple[float, float]:
            heart = asyncio.create_task(tick())
            await asyncio.sleep(0.01)
            ticks.clear()
            start = time.monotonic()
            await self.acall(llm, endpoint)
            end = time.monotonic()
            heart.cancel()
            return start, end

        start, end = run(work())
        if end - start < 0.05:
            pytest.skip(f"the answer took {end - start:.3f} s: too fast to tell; override slow_params")
        times = [start, *ticks, end]
        longest = max(after - before for before, after in itertools.pairwise(times))
        assert len(ticks) >= 3, f"the loop stood still for {longest:.2f} of {end - start:.2f} s"
        assert longest < 0.9 * (end - start), f"the loop stood still for {longest:.2f} of {end - start:.2f} s"

    @each_async
    def test_one_llm_on_several_loops(self, llm: LLM, endpoint: str) -> None:
        """Fails: calls raise "Event loop is closed" or "attached to a different loop". Core often makes new loops
        (``async_utils.asyncio_run``) and uses one LLM on all of them.
        """
        texts = [text_of(run(self.acall(llm, endpoint))[-1]) for _ in range(3)]
        if self.is_deterministic:
            assert len(set(texts)) == 1

    def test_sync_call_on_a_running_loop(self, llm: LLM) -> None:
        """Fails: calls deadlock or raise "loop is already running". ``PydanticMultiSelector`` calls ``chat`` on the
        loop's thread even in ``aselect``, and notebooks always do so.
        """

        async def work() -> list[str]:
            pending = asyncio.create_task(self.acall(llm, "acomplete", self._prompts[0]))
            await asyncio.sleep(0)
            inside = self.answer(llm, "complete", self._prompts[1])
            again = self.answer(llm, "complete", self._prompts[2])
            return [text_of((await pending)[-1]), inside, again]

        self._expect(llm, within(self.call_limit, lambda: run(work())), "complete")

    # --- at the same time ---

    @pytest.mark.parametrize("endpoint", ["complete", "stream_complete"])
    def test_calls_from_several_threads(self, llm: LLM, endpoint: str) -> None:
        """Fails: answers are mixed up, or the process dies. Web servers share one LLM among threads."""
        works = [partial(self.answer, llm, endpoint, prompt) for prompt in self._prompts]
        self._expect(llm, together(self.call_limit, works), endpoint)

    @each_async
    def test_loops_in_several_threads(self, llm: LLM, endpoint: str) -> None:
        """Fails: as above, with a loop in each thread. ``SubQuestionQueryEngine.query`` and ``TreeIndex`` do this."""
        works = [partial(self.answer, llm, endpoint, prompt) for prompt in self._prompts]
        self._expect(llm, together(self.call_limit, works), endpoint)

    @each_async
    def test_gather(self, llm: LLM, endpoint: str) -> None:
        """Fails: extractors (four at a time), evaluators, ``use_async=True`` and sub-questions mix up their answers."""

        async def work() -> list[str]:
            results = await asyncio.gather(*(self.acall(llm, endpoint, prompt) for prompt in self._prompts))
            return [text_of(responses[-1]) for responses in results]

        texts = within(self.call_limit, lambda: run(work()))
        self._expect(llm, texts, endpoint)

    @pytest.mark.parametrize("endpoint", STREAMS)
    def test_two_streams_side_by_side(self, llm: LLM, endpoint: str) -> None:
        """Fails: an open stream blocks every other call, or loses text of it."""
        if endpoint.startswith("a"):

            async def both() -> list[str]:
                streams = [await getattr(llm, endpoint)(self.argument(endpoint, p)) for p in self._prompts[:2]]
                return [text_of([chunk async for chunk in stream][-1]) for stream in reversed(streams)]

            texts = within(self.call_limit, lambda: run(both()))
        else:

            def work() -> list[str]:
                streams = [getattr(llm, endpoint)(self.argument(endpoint, p)) for p in self._prompts[:2]]
                return [text_of(list(stream)[-1]) for stream in reversed(streams)]

            texts = within(self.call_limit, work)
        if self.is_deterministic:
            assert texts == [self._alone(llm, endpoint, prompt) for prompt in reversed(self._prompts[:2])]
