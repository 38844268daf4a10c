"""Callers that leave before their answer is complete."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.llm import LLM

from .base import ConformanceBase
from .calls import each_async, each_endpoint, run, within
from .recording import RecordingHandler


class LeavingTests(ConformanceBase):
    """Streams that are left, tasks that are cancelled."""

    def _works_afterwards(self, llm: LLM) -> None:
        if self.busy(llm):
            gc.collect()
        self.wait_until_idle(llm)
        fresh = self.make()
        assert within(self.call_limit, lambda: self.answer(fresh, "complete")).strip()

    @pytest.mark.parametrize("how", ["close", "break", "drop", "never_started"])
    @pytest.mark.parametrize("endpoint", ["stream_chat", "stream_complete"])
    def test_leaving_a_stream(self, endpoint: str, how: str) -> None:
        """Fails: the model goes on for a user who has closed the page, and the next user waits."""
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
        """Fails: as above. Core's wrapper closes the LLM's own generator one turn of the loop later, so the clean-up
        must not need the caller's task.
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
        """Fails: after a timeout (``asyncio.wait_for``) or a closed connection the model stays busy, or the caller gets
        an answer or another error.
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
        """Fails: threads, handlers or open connections pile up with each call."""
        self.call(llm, endpoint, **self.limit(1))
        before = threading.active_count()
        for _ in range(3):
            self.call(llm, endpoint, **self.limit(1))
        assert threading.active_count() <= before + 1
