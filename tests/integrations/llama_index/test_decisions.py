"""Many questions to one engine, and texts that do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from dgemma_core import Engine, LoadSpec, Question
from dgemma_integrations.llama_index.concurrency import together
from dgemma_integrations.llama_index.decisions import Decisions
from dgemma_integrations.llama_index.long_texts import split_text


async def test_a_full_queue_is_waited_for_while_own_requests_are_under_way() -> None:
    # Too many questions for one canvas are two requests, so that two texts are more than the queue holds.
    questions = {str(i): Question("bool", f"{i}?") for i in range(12)}
    with Engine(LoadSpec(max_queue=2)) as engine:
        # Nothing leaves the queue before the weights are there, which they are not yet.
        decisions = Decisions(engine, seed=1)
        answers = await together(decisions.ask(f"Text {i}.", questions) for i in range(4))
        assert engine.stats().finished == 8
        for i, answer in enumerate(answers):
            again = await engine.adecide(f"Text {i}.", questions, seed=1)
            for name in questions:
                assert answer[name].probabilities == pytest.approx(again[name].probabilities, abs=1e-5)


async def test_room_in_a_full_queue_comes_from_requests_that_were_begun_later(until: Any) -> None:
    class LateOnce(Engine):
        """Its first call is overtaken by the second, as may happen while an engine is being opened."""

        calls = 0

        async def adecide(self, *args: Any, **options: Any) -> Any:
            LateOnce.calls += 1
            if LateOnce.calls == 1:
                await until(lambda: self.stats().waiting == 2)
            return await super().adecide(*args, **options)

    questions = {str(i): Question("bool", f"{i}?") for i in range(12)}
    with LateOnce(LoadSpec(max_queue=2)) as engine:
        decisions = Decisions(engine, seed=1)
        answers = await together(decisions.ask(f"Text {i}.", questions) for i in range(2))
        assert [len(answer) for answer in answers] == [12, 12]


def test_long_texts_are_cut_between_words(small_engine: Engine) -> None:
    text = "  The bridge of Vexal was built in 1931, " * 40 + "x" * 900
    pieces = list(split_text(small_engine, text, 24))
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(small_engine.encode_text(piece)) <= 24 for piece in pieces)
    words = set(text.split())
    assert set(" ".join(pieces[:20]).split()) <= words
