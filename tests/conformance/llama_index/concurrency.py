"""Threads, event loops, cancelling."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Callable

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.llm import LLM

from .base import (
    STREAMS,
    ConformanceBase,
    RecordingHandler,
    each_async,
    each_endpoint,
    needs,
    run,
    text_of,
    together,
    within,
)


class ConcurrencyTests(ConformanceBase):
    """Many callers at once, and callers that go away."""

    @property
    def _prompts(self) -> tuple[str, ...]:
        return self.other_prompts

    def _expect(self, llm: LLM, texts: list[str], endpoint: str) -> None:
        assert all(text.strip() for text in texts), texts
        if self.is_deterministic:
            assert texts == [self._alone(llm, endpoint, prompt) for prompt in self._prompts]

    def _alone(self, llm: LLM, endpoint: str, prompt: str) -> str:
        """What the LLM says when nobody else asks; asked once per class."""
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
        ``CustomLLM`` does it: its ``achat`` is ``chat``.
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
        """Fails: "Event loop is closed" or "attached to a different loop": core makes loops as it likes
        (``async_utils.asyncio_run``), with one LLM on all of them.
        """
        texts = [text_of(run(self.acall(llm, endpoint))[-1]) for _ in range(3)]
        if self.is_deterministic:
            assert len(set(texts)) == 1

    def test_sync_call_on_a_running_loop(self, llm: LLM) -> None:
        """Fails: a deadlock or "loop is already running": ``PydanticMultiSelector`` calls ``chat`` on the loop's thread
        even in ``aselect``, and notebooks always do.
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
        """Fails: answers are mixed up or the process dies: web servers share one LLM among threads."""
        works: list[Callable[[], str]] = [
            lambda prompt=prompt: self.answer(llm, endpoint, prompt)
            for prompt in self._prompts  # type: ignore[misc]
        ]
        self._expect(llm, together(self.call_limit, works), endpoint)

    @each_async
    def test_loops_in_several_threads(self, llm: LLM, endpoint: str) -> None:
        """Fails: as above, with a loop in each thread: ``SubQuestionQueryEngine.query`` and ``TreeIndex`` make them."""
        works: list[Callable[[], str]] = [
            lambda prompt=prompt: text_of(run(self.acall(llm, endpoint, prompt))[-1])
            for prompt in self._prompts  # type: ignore[misc]
        ]
        texts = together(self.call_limit, works)
        self._expect(llm, texts, endpoint)

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
        """Fails: a stream that is open blocks every other call, or swallows its words."""
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

    # --- going away ---

    def _works_afterwards(self, llm: LLM) -> None:
        if self.busy(llm):
            gc.collect()
        self.wait_until_idle(llm)
        fresh = self.make()
        assert within(self.call_limit, lambda: self.answer(fresh, "complete")).strip()

    @pytest.mark.parametrize("how", ["close", "break", "drop", "never_started"])
    @pytest.mark.parametrize("endpoint", ["stream_chat", "stream_complete"])
    def test_leaving_a_stream(self, endpoint: str, how: str) -> None:
        """Fails: the model goes on for a user who closed the page, and the next one waits."""
        llm = self.make_slow()

        def leave() -> None:
            stream = getattr(llm, endpoint)(self.argument(endpoint))
            if how != "never_started":
                next(iter(stream))
            if how == "close":
                stream.close()
            del stream

        if how == "break":

            def leave() -> None:
                for _ in getattr(llm, endpoint)(self.argument(endpoint)):
                    break

        within(self.call_limit, leave)
        self._works_afterwards(llm)

    @pytest.mark.parametrize("endpoint", ["stream_chat", "stream_complete"])
    def test_leaving_a_stream_ends_its_event(self, endpoint: str) -> None:
        """Fails: traces show calls that never end, or end twice."""
        llm = self.make_slow()
        handler = RecordingHandler()
        llm.callback_manager = CallbackManager([handler])
        stream = getattr(llm, endpoint)(self.argument(endpoint))
        next(iter(stream))
        stream.close()
        assert len(handler.started) == 1
        assert handler.ended == handler.started
        self.wait_until_idle(llm)

    @pytest.mark.parametrize("endpoint", ["astream_chat", "astream_complete"])
    @pytest.mark.parametrize("how", ["aclose", "break", "never_started"])
    def test_leaving_an_async_stream(self, endpoint: str, how: str) -> None:
        """Fails: as above. Core's wrapper closes the LLM's own generator a turn of the loop later, so it must not need
        the caller's task to clean up.
        """
        llm = self.make_slow()

        async def leave() -> None:
            stream = await getattr(llm, endpoint)(self.argument(endpoint))
            if how != "never_started":
                async for _ in stream:
                    break
            if how == "aclose":
                await stream.aclose()
            del stream
            await asyncio.sleep(0.05)

        within(self.call_limit, lambda: run(leave()))
        self._works_afterwards(llm)

    @each_async
    def test_cancelled_task(self, endpoint: str) -> None:
        """Fails: a timeout (``asyncio.wait_for``) or a closed connection leaves the model busy, or turns into an answer
        or another error.
        """
        llm = self.make_slow()
        run(self.acall(llm, endpoint, **self.limit(2)))

        async def work() -> str:
            task = asyncio.create_task(self.acall(llm, endpoint))
            await asyncio.sleep(0.03)
            if task.done():
                return "too fast"
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return "cancelled"
            return "answered"

        outcome = within(self.call_limit, lambda: run(work()))
        if outcome == "too fast":
            pytest.skip("the answer was there before it could be cancelled; override slow_params")
        assert outcome == "cancelled"
        self._works_afterwards(llm)

    @each_endpoint
    def test_many_calls_in_a_row(self, llm: LLM, endpoint: str) -> None:
        """Fails: something piles up with each call: threads, handlers, open connections."""
        self.call(llm, endpoint, **self.limit(1))
        before = threading.active_count()
        for _ in range(3):
            self.call(llm, endpoint, **self.limit(1))
        assert threading.active_count() <= before + 1
