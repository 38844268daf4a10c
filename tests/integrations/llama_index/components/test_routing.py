"""Routers and sub-questions."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.objects import ObjectIndex
from llama_index.core.query_engine import (
    RetrieverQueryEngine,
    SubQuestionQueryEngine,
    ToolRetrieverRouterQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.schema import QueryBundle
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.tools import QueryEngineTool, ToolMetadata

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import MARKS, QUESTION, WatchedEngine, parsed

pytestmark = MARKS


@pytest.mark.parametrize("kind", [LLMSingleSelector, LLMMultiSelector])
def test_cores_selectors(llm: DiffusionGemma, engine: WatchedEngine, kind: Any) -> None:
    selector = kind.from_defaults(llm=llm)
    # The answer must be a JSON list; the output parser raises ValueError on anything else.
    result = parsed(lambda: selector.select(["about bridges", "about museums"], QUESTION), ValueError)
    assert result is None or result.inds
    assert len(engine.handles) == 1


def tools(query_engine: RetrieverQueryEngine, count: int) -> list[QueryEngineTool]:
    return [
        QueryEngineTool(query_engine, metadata=ToolMetadata(name=f"tool{i}", description=f"about {i}"))
        for i in range(count)
    ]


async def test_tool_retriever_router(
    llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine
) -> None:
    index = ObjectIndex.from_objects(tools(query_engine, 3))
    router = ToolRetrieverRouterQueryEngine(index.as_retriever(similarity_top_k=3), llm=llm)
    response = await router.aquery(QUESTION)
    assert len(response.metadata["retrieved_tools"]) == 3
    assert (len(engine.handles), engine.most_open) == (4, 3)
    assert str(router.query(QUESTION)) == str(response)


class OneForEachTool(BaseQuestionGenerator):
    """Asks every tool the same question; the LLM's part is only to answer."""

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: dict[str, Any]) -> None:
        pass

    def generate(self, tools: Any, query: QueryBundle) -> list[SubQuestion]:
        return [SubQuestion(sub_question=query.query_str, tool_name=tool.name) for tool in tools]

    async def agenerate(self, tools: Any, query: QueryBundle) -> list[SubQuestion]:
        return self.generate(tools, query)


async def test_sub_questions_are_answered_together(
    llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine
) -> None:
    sub_questions = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=tools(query_engine, 3), llm=llm, question_gen=OneForEachTool(), verbose=False
    )
    response = sub_questions.query(QUESTION)
    assert (len(engine.handles), engine.most_open) == (4, 3)
    assert str(await sub_questions.aquery(QUESTION)) == str(response)
    assert len(response.source_nodes) >= 3


async def test_the_llm_as_question_generator(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    generator = LLMQuestionGenerator.from_defaults(llm=llm)
    metadata = [ToolMetadata(name="bridges", description="about bridges")]
    # The answer must hold a JSON object with "items"; else the output parser raises ValueError.
    questions = parsed(lambda: generator.generate(metadata, QueryBundle(QUESTION)), ValueError)
    assert questions is None or all(isinstance(q, SubQuestion) for q in questions)
    assert len(engine.handles) == 1
