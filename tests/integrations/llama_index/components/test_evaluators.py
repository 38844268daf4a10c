"""LlamaIndex's own evaluators."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.evaluation import (
    AnswerRelevancyEvaluator,
    BatchEvalRunner,
    ContextRelevancyEvaluator,
    CorrectnessEvaluator,
    FaithfulnessEvaluator,
    GuidelineEvaluator,
    PairwiseComparisonEvaluator,
    RelevancyEvaluator,
)

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import (
    MARKS,
    PASSAGES,
    QUESTION,
    RESPONSE,
    WatchedEngine,
    parsed,
)

pytestmark = MARKS


@pytest.mark.parametrize("kind", [FaithfulnessEvaluator, RelevancyEvaluator])
async def test_evaluators_that_read_any_answer(llm: DiffusionGemma, engine: WatchedEngine, kind: Any) -> None:
    evaluator = kind(llm=llm)
    result = evaluator.evaluate(query=QUESTION, response=RESPONSE, contexts=list(PASSAGES[:2]))
    assert result.score in (0.0, 1.0)
    assert await evaluator.aevaluate(query=QUESTION, response=RESPONSE, contexts=list(PASSAGES[:2])) == result
    assert len(engine.handles) == 2


@pytest.mark.parametrize(
    "kind", [CorrectnessEvaluator, GuidelineEvaluator, AnswerRelevancyEvaluator, ContextRelevancyEvaluator]
)
def test_evaluators_that_need_a_form(llm: DiffusionGemma, engine: WatchedEngine, kind: Any) -> None:
    evaluator = kind(llm=llm)
    # A number in the first line, JSON, "[RESULT] n": where that is missing the result is invalid, or a ValueError.
    result = parsed(
        lambda: evaluator.evaluate(query=QUESTION, response=RESPONSE, contexts=list(PASSAGES[:2])), ValueError
    )
    assert result is None or result.query == QUESTION
    assert engine.handles


def test_pairwise(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    evaluator = PairwiseComparisonEvaluator(llm=llm, enforce_consensus=True)
    result = evaluator.evaluate(query=QUESTION, response=RESPONSE, second_response="In 1932.")
    assert result.invalid_result or result.score is not None
    assert len(engine.handles) in (1, 2)


async def test_batch_runner(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    runner = BatchEvalRunner({"faithful": FaithfulnessEvaluator(llm=llm)}, workers=4)
    results = await runner.aevaluate_response_strs([QUESTION] * 6, [RESPONSE] * 6, [[PASSAGES[0]]] * 6)
    assert len(results["faithful"]) == 6
    assert (len(engine.handles), engine.most_open) == (6, 4)
