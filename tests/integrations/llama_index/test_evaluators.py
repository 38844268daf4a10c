"""Evaluators on decisions. The embedded weights' judgement is not asserted, only what holds for any weights."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.response.schema import Response
from llama_index.core.evaluation import BaseEvaluator, BatchEvalRunner, EvaluationResult
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine, RetryGuidelineQueryEngine, RetryQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode

from dgemma_core import Calibration, Engine, LoadSpec, Question
from dgemma_core.errors import ContextOverflowError
from dgemma_integrations.llama_index import (
    DiffusionGemma,
    DiffusionGemmaAnswerRelevancyEvaluator,
    DiffusionGemmaContextRelevancyEvaluator,
    DiffusionGemmaCorrectnessEvaluator,
    DiffusionGemmaEvaluator,
    DiffusionGemmaFaithfulnessEvaluator,
    DiffusionGemmaGuidelineEvaluator,
    DiffusionGemmaRelevancyEvaluator,
)

QUERY = "When was the Vexal bridge built?"
RESPONSE = "The Vexal bridge was built in 1931."
CONTEXTS = ["The Vexal bridge was built in 1931.", "It crosses the river Toln."]
GIVEN: dict[str, Any] = {"query": QUERY, "response": RESPONSE, "contexts": CONTEXTS, "reference": "In 1931."}

# What each of them asks, and about what.
ABOUT_CONTEXTS = "\n\n".join(CONTEXTS)
ABOUT_ANSWER = f"Question: {QUERY}\nAnswer: {RESPONSE}"
ASKED: dict[type[DiffusionGemmaEvaluator], tuple[str, str]] = {
    DiffusionGemmaFaithfulnessEvaluator: (ABOUT_CONTEXTS, f"Does the text support this answer: {RESPONSE}"),
    DiffusionGemmaRelevancyEvaluator: (
        ABOUT_CONTEXTS,
        f'Is the answer "{RESPONSE}" to the question "{QUERY}" in line with the text?',
    ),
    DiffusionGemmaContextRelevancyEvaluator: (ABOUT_CONTEXTS, f"Does the text answer this question: {QUERY}"),
    DiffusionGemmaAnswerRelevancyEvaluator: (ABOUT_ANSWER, "Does the answer answer the question?"),
    DiffusionGemmaCorrectnessEvaluator: (
        f"Question: {QUERY}\nRight answer: In 1931.\nGiven answer: {RESPONSE}",
        "Does the given answer say the same as the right answer?",
    ),
}
ALL = [*ASKED, DiffusionGemmaGuidelineEvaluator]


@pytest.mark.parametrize("kind", list(ASKED), ids=lambda kind: kind.__name__)
async def test_the_score_is_the_probability_of_yes(
    llm: DiffusionGemma, embedded_engine: Engine, kind: type[DiffusionGemmaEvaluator]
) -> None:
    context, question = ASKED[kind]
    answer = embedded_engine.decide(context, {"q": Question("bool", question)}, seed=llm.seed)["q"]
    yes = answer.probabilities["yes"]
    result = await kind(llm).aevaluate(**GIVEN)
    assert isinstance(result, EvaluationResult)
    assert result.score == pytest.approx(yes, abs=1e-5)
    assert result.passing == (yes >= 0.5)
    assert f"probability of yes {yes:.3f}" in str(result.feedback)
    assert (result.query, result.response, result.contexts) == (QUERY, RESPONSE, CONTEXTS)
    assert kind(llm, threshold=0.0).evaluate(**GIVEN).passing is True
    assert kind(llm, threshold=1.0).evaluate(**GIVEN).passing is False


async def test_a_question_for_each_guideline_in_one_request(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    guidelines = ["The answer is short.", "The answer names a year."]
    questions = {g: Question("bool", f"Does the answer follow this guideline: {g}") for g in guidelines}
    answers = embedded_engine.decide(ABOUT_ANSWER, questions, seed=llm.seed)
    before = embedded_engine.stats().submitted
    result = await DiffusionGemmaGuidelineEvaluator(llm, guidelines).aevaluate(QUERY, RESPONSE)
    assert embedded_engine.stats().submitted - before == 1
    assert result.score == pytest.approx(min(a.probabilities["yes"] for a in answers.values()), abs=1e-5)
    assert [g in line for g, line in zip(guidelines, str(result.feedback).split("\n"), strict=True)] == [True, True]
    text = DiffusionGemmaGuidelineEvaluator(llm, "The answer is short.\n\n The answer names a year.\n")
    assert text.evaluate(QUERY, RESPONSE).score == pytest.approx(result.score, abs=1e-5)
    assert DiffusionGemmaGuidelineEvaluator(llm).evaluate(QUERY, RESPONSE).score is not None


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
async def test_what_is_missing_is_named(llm: DiffusionGemma, kind: type[DiffusionGemmaEvaluator]) -> None:
    evaluator = kind(llm)
    for name in kind.needs:
        with pytest.raises(ValueError, match=f"missing: {name}"):
            await evaluator.aevaluate(**{**GIVEN, name: None})
    with pytest.raises(ValueError, match="must be provided"):
        evaluator.evaluate()


async def test_a_question_of_ones_own(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    evaluator = DiffusionGemmaEvaluator(llm, "Is this {query} a question,\nand this {response} its answer?")
    question = f"Is this {QUERY} a question, and this {RESPONSE} its answer?"
    answer = embedded_engine.decide(ABOUT_CONTEXTS, {"q": Question("bool", question)}, seed=llm.seed)["q"]
    result = await evaluator.aevaluate(**GIVEN)
    assert result.score == pytest.approx(answer.probabilities["yes"], abs=1e-5)
    assert set(evaluator.get_prompts()) == {"eval_template"}
    evaluator.update_prompts({"eval_template": PromptTemplate("Is it about {query}?")})
    assert "Is it about" in str(evaluator.evaluate(**GIVEN).feedback)


def test_nothing_retrieved_supports_nothing(llm: DiffusionGemma, embedded_engine: Engine) -> None:
    before = embedded_engine.stats().submitted
    for contexts in ([], [" "]):
        result = DiffusionGemmaFaithfulnessEvaluator(llm).evaluate(QUERY, RESPONSE, contexts)
        assert (result.passing, result.score) == (False, 0.0)
        assert "no context" in str(result.feedback)
    assert embedded_engine.stats().submitted == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 2}, "threshold=2"),
        ({"threshold": True}, "threshold=True"),
        ({"question": " "}, "question=' '"),
        ({"question": None}, "question=None"),
        ({"draws": True}, "draws=True"),
        ({"calibration": {}}, "calibration={}"),
        ({"llm": MockLLM()}, "llm=MockLLM"),
    ],
)
def test_bad_settings_are_named(llm: DiffusionGemma, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionGemmaEvaluator(**{"llm": llm, "question": "Is it?", **settings})


def test_bad_guidelines_are_named(llm: DiffusionGemma) -> None:
    with pytest.raises(ValueError, match="guidelines='\\\\n'"):
        DiffusionGemmaGuidelineEvaluator(llm, "\n")
    with pytest.raises(ValueError, match=r"\{guideline\}"):
        DiffusionGemmaGuidelineEvaluator(llm, question="Is it good?")


def test_raise_error(llm: DiffusionGemma) -> None:
    with pytest.raises(ValueError, match="The response is invalid: no"):
        DiffusionGemmaFaithfulnessEvaluator(llm, threshold=1.0, raise_error=True).evaluate(**GIVEN)


async def test_contexts_longer_than_the_window_are_asked_about_in_parts() -> None:
    with Engine(LoadSpec(max_context=200)) as engine:
        llm = DiffusionGemma(engine=engine, seed=1)
        contexts = [f"The Halur bridge number {i} was built in 19{i:02}." for i in range(30)]
        result = await DiffusionGemmaFaithfulnessEvaluator(llm).aevaluate(QUERY, RESPONSE, contexts)
        assert engine.stats().submitted > 1
        assert 0 < result.score < 1
        # The engine's own error, not a hint about nested event loops.
        for evaluator in (DiffusionGemmaFaithfulnessEvaluator(llm), DiffusionGemmaAnswerRelevancyEvaluator(llm)):
            with pytest.raises(ContextOverflowError, match="context length exceeded"):
                evaluator.evaluate(QUERY, "why " * 400, contexts)
            with pytest.raises(ContextOverflowError):
                await evaluator.aevaluate(QUERY, "why " * 400, contexts)


async def test_evaluators_of_the_same_contexts_compute_them_once() -> None:
    with Engine(LoadSpec()) as engine:
        llm = DiffusionGemma(engine=engine, seed=1)
        await DiffusionGemmaFaithfulnessEvaluator(llm).aevaluate(**GIVEN)
        await DiffusionGemmaRelevancyEvaluator(llm).aevaluate(**GIVEN)
        assert engine.stats().prefix_tokens >= len(engine.encode_text(ABOUT_CONTEXTS)) - 2


def test_a_calibration_moves_the_score(llm: DiffusionGemma) -> None:
    plain = DiffusionGemmaFaithfulnessEvaluator(llm).evaluate(**GIVEN).score
    soft = DiffusionGemmaFaithfulnessEvaluator(llm, calibration=Calibration(20.0, 0.0, 0.0, 1)).evaluate(**GIVEN).score
    assert abs(soft - 0.5) < abs(plain - 0.5)


async def test_batch_runner(llm: DiffusionGemma) -> None:
    evaluators: dict[str, BaseEvaluator] = {kind.__name__: kind(llm) for kind in ALL}
    runner = BatchEvalRunner(evaluators, workers=6)
    responses = [
        Response(RESPONSE, source_nodes=[NodeWithScore(node=TextNode(text=text)) for text in CONTEXTS])
        for _ in range(3)
    ]
    correctness = DiffusionGemmaCorrectnessEvaluator.__name__
    kwargs = {name: {"reference": [""] * 3} for name in evaluators} | {correctness: {"reference": ["In 1931."] * 3}}
    results = await runner.aevaluate_responses([QUERY] * 3, responses, **kwargs)
    for kind, expected in ((kind, kind(llm).evaluate(**GIVEN)) for kind in ALL):
        found = results[kind.__name__]
        assert len(found) == 3
        assert [result.score for result in found] == pytest.approx([expected.score] * 3, abs=1e-5)


async def test_evaluations_share_steps() -> None:
    with Engine(LoadSpec()) as engine:
        evaluator = DiffusionGemmaFaithfulnessEvaluator(DiffusionGemma(engine=engine, seed=1))
        runner = BatchEvalRunner({"faithful": evaluator}, workers=8)
        answers = [f"It was built in 19{i}." for i in range(10, 18)]
        await runner.aevaluate_response_strs([QUERY] * 8, answers, [CONTEXTS] * 8)
        assert engine.stats().max_batch > 1


async def test_evaluating_on_a_running_loop(llm: DiffusionGemma) -> None:
    evaluator = DiffusionGemmaFaithfulnessEvaluator(llm)
    assert evaluator.evaluate(**GIVEN) == await evaluator.aevaluate(**GIVEN)


async def test_a_cancelled_evaluation_leaves_nothing_behind(
    llm: DiffusionGemma, embedded_engine: Engine, until: Any
) -> None:
    before = embedded_engine.stats()
    task = asyncio.create_task(DiffusionGemmaFaithfulnessEvaluator(llm, draws=1000).aevaluate(**GIVEN))
    await until(lambda: embedded_engine.stats().running > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: embedded_engine.stats().running == 0)
    assert embedded_engine.stats().cancelled == before.cancelled + 1


@pytest.fixture
def settings_llm(quick_llm: DiffusionGemma) -> Iterator[None]:
    """Retry engines build a query transformation that takes the LLM of the settings."""
    before = Settings._llm
    Settings.llm = quick_llm
    yield
    Settings._llm = before


@pytest.mark.usefixtures("settings_llm")
@pytest.mark.parametrize(("threshold", "answers"), [(0.0, 1), (1.0, 3)])
async def test_retry_query_engine(
    quick_llm: DiffusionGemma, retriever: Callable[..., Any], events: Any, threshold: float, answers: int
) -> None:
    base = RetrieverQueryEngine.from_args(retriever(top_k=1), llm=quick_llm)
    evaluator = DiffusionGemmaRelevancyEvaluator(quick_llm, threshold=threshold)
    response = RetryQueryEngine(base, evaluator, max_retries=2).query(QUERY)
    assert len(response.source_nodes) == 1
    assert events.count("LLMChatEndEvent") == answers
    guided = RetryGuidelineQueryEngine(
        base, DiffusionGemmaGuidelineEvaluator(quick_llm, threshold=threshold), max_retries=1, resynthesize_query=True
    )  # type: ignore[arg-type]
    assert str(await guided.aquery(QUERY))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_making_one_loads_nothing_and_it_can_be_pickled(kind: type[DiffusionGemmaEvaluator], tmp_path: Any) -> None:
    llm = DiffusionGemma(model=str(tmp_path / "nowhere"))
    evaluator = kind(llm, threshold=0.25)
    copy = pickle.loads(pickle.dumps(evaluator))
    assert copy._llm.model == llm.model
    assert copy._threshold == 0.25
    assert copy.get_prompts() == evaluator.get_prompts()
