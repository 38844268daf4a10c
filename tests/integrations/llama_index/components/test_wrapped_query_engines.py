"""Query engines around a query engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.response.schema import Response
from llama_index.core.evaluation import (
    RelevancyEvaluator,
)
from llama_index.core.indices.query.query_transform import HyDEQueryTransform, StepDecomposeQueryTransform
from llama_index.core.query_engine import (
    CitationQueryEngine,
    FLAREInstructQueryEngine,
    MultiStepQueryEngine,
    RetrieverQueryEngine,
    RetryQueryEngine,
    RetrySourceQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.retrievers import QueryFusionRetriever

from dgemma_integrations.llama_index import DiffusionGemma, DiffusionGemmaFaithfulnessEvaluator
from tests.integrations.llama_index.components.conftest import MARKS, PASSAGES, QUESTION, WatchedEngine

pytestmark = MARKS


async def test_citations(llm: DiffusionGemma, engine: WatchedEngine, retriever: Callable[..., Any]) -> None:
    def citing(**options: Any) -> CitationQueryEngine:
        return CitationQueryEngine.from_args(None, llm=llm, retriever=retriever(*PASSAGES), **options)

    response = citing().query(QUESTION)
    assert [node.text.startswith(f"Source {i}:") for i, node in enumerate(response.source_nodes, 1)] == [True, True]
    assert str(await citing().aquery(QUESTION)) == str(response)
    streamed = citing(streaming=True).query(QUESTION)
    assert "".join(streamed.response_gen) == str(response)
    assert len(engine.handles) == 3


@pytest.mark.parametrize(("threshold", "answers"), [(0.0, 1), (1.0, 2)])
def test_retry_source(
    llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine, threshold: float, answers: int
) -> None:
    evaluator = DiffusionGemmaFaithfulnessEvaluator(llm, threshold=threshold)
    response = RetrySourceQueryEngine(query_engine, evaluator, llm=llm, max_retries=1).query(QUESTION)
    assert response.source_nodes
    assert len(engine.handles) == answers


def test_retry_with_cores_evaluator(llm: DiffusionGemma, query_engine: RetrieverQueryEngine) -> None:
    response = RetryQueryEngine(query_engine, RelevancyEvaluator(llm=llm), max_retries=1).query(QUESTION)
    assert response.source_nodes


def test_hyde(llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine) -> None:
    transformed = TransformQueryEngine(query_engine, HyDEQueryTransform(llm=llm, include_original=True))
    assert transformed.query(QUESTION).source_nodes
    assert len(engine.handles) == 2


def test_multi_step(llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine) -> None:
    steps = MultiStepQueryEngine(
        query_engine, StepDecomposeQueryTransform(llm=llm), num_steps=2, early_stopping=False, index_summary="facts"
    )
    response = steps.query(QUESTION)
    assert len(response.metadata["sub_qa"]) == 2
    # A question and an answer for each step, and the final answer.
    assert len(engine.handles) == 5


def test_flare(llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine) -> None:
    flare = FLAREInstructQueryEngine(query_engine, llm=llm, max_iterations=1)
    assert isinstance(flare.query(QUESTION), Response)
    assert engine.handles


async def test_query_fusion(llm: DiffusionGemma, engine: WatchedEngine, retriever: Callable[..., Any]) -> None:
    fusion = QueryFusionRetriever([retriever(*PASSAGES)], llm=llm, num_queries=3, use_async=False)
    found = fusion.retrieve(QUESTION)
    assert found
    assert len(engine.handles) == 1
    assert [node.node_id for node in await fusion.aretrieve(QUESTION)] == [node.node_id for node in found]
