"""The components of LlamaIndex's core that work through tool calls and output classes, on the embedded checkpoint.

What they get always has the form they ask for. That a number in it names one of three choices is for the model to
know, and this small one may not: where LlamaIndex then raises, a test says which error that is; no other one passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import sqlalchemy
from llama_index.core import KnowledgeGraphIndex, PropertyGraphIndex, SQLDatabase, SummaryIndex
from llama_index.core.agent.workflow import CodeActAgent
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.indices.property_graph import DynamicLLMPathExtractor, SchemaLLMPathExtractor
from llama_index.core.postprocessor import StructuredLLMRerank
from llama_index.core.program.function_program import FunctionCallingProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import NLSQLTableQueryEngine, RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import Document, NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import PydanticMultiSelector, PydanticSingleSelector
from llama_index.core.tools import QueryEngineTool, ToolMetadata
from pydantic import BaseModel

from dgemma_core import Engine
from dgemma_integrations.llama_index import DiffusionGemma

QUESTION = "When was the Vexal bridge built?"
PASSAGES = ("The Vexal bridge was built in 1931.", "The Mirdo museum opened in 1978.")
NODES = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in PASSAGES]
CHOICES = [ToolMetadata("questions about bridges", "bridges"), ToolMetadata("questions about museums", "museums")]


class Bridge(BaseModel):
    """A bridge."""

    name: str
    year: int


@contextmanager
def model_may_name_none(*messages: str) -> Iterator[None]:
    """Lets through what LlamaIndex raises when a number names none of the choices."""
    try:
        yield
    except (IndexError, ValueError) as error:
        # The last is of a number too long for any list.
        if not any(message in str(error) for message in (*messages, "list index out of range", "index-sized")):
            raise


@pytest.fixture
def llm(embedded_engine: Engine) -> DiffusionGemma:
    # Few steps: what is looked at here does not depend on how good an answer is.
    return DiffusionGemma(engine=embedded_engine, seed=4, max_tokens=96, max_denoising_steps=6)


async def test_pydantic_selectors_get_the_form_they_ask_for(llm: DiffusionGemma) -> None:
    for selector in (PydanticSingleSelector.from_defaults(llm=llm), PydanticMultiSelector.from_defaults(llm=llm)):
        for result in (selector.select(CHOICES, QUESTION), await selector.aselect(CHOICES, QUESTION)):
            assert all(isinstance(selection.index, int) for selection in result.selections)


async def test_a_router_picks_the_function_way_by_itself(llm: DiffusionGemma) -> None:
    def engine_of(text: str, name: str) -> QueryEngineTool:
        engine = SummaryIndex.from_documents([Document(text=text)]).as_query_engine(llm=llm)
        return QueryEngineTool.from_defaults(engine, name=name, description=f"questions about {name}")

    router = RouterQueryEngine.from_defaults(
        [engine_of(PASSAGES[0], "bridges"), engine_of(PASSAGES[1], "museums")], llm=llm
    )
    assert isinstance(router._selector, PydanticSingleSelector)
    with model_may_name_none("Failed to select query engine"):
        assert str(await router.aquery(QUESTION)).strip()


@pytest.mark.parametrize(
    "mode",
    [
        ResponseMode.REFINE,
        ResponseMode.COMPACT,
        ResponseMode.TREE_SUMMARIZE,
        ResponseMode.SIMPLE_SUMMARIZE,
        ResponseMode.ACCUMULATE,
        ResponseMode.COMPACT_ACCUMULATE,
    ],
)
async def test_output_classes_in_every_response_mode(
    llm: DiffusionGemma, retriever: Callable[..., Any], mode: ResponseMode
) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=mode, output_cls=Bridge)
    query_engine = RetrieverQueryEngine(retriever(*PASSAGES), synthesizer)
    # Several answers are joined as text, and simple_summarize does not look at the class.
    as_text = mode in (ResponseMode.ACCUMULATE, ResponseMode.COMPACT_ACCUMULATE, ResponseMode.SIMPLE_SUMMARIZE)
    for response in (query_engine.query(QUESTION), await query_engine.aquery(QUESTION)):
        assert response.source_nodes
        if as_text:
            assert isinstance(response.response, str)
            assert mode == ResponseMode.SIMPLE_SUMMARIZE or "name='" in response.response
        else:
            assert isinstance(response.response, Bridge)


async def test_structured_answer_filtering(llm: DiffusionGemma, retriever: Callable[..., Any]) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode.REFINE, structured_answer_filtering=True)
    query_engine = RetrieverQueryEngine(retriever(*PASSAGES), synthesizer)
    # Where the model says of every passage that it does not help, LlamaIndex's answer is "Empty Response".
    assert str(query_engine.query(QUESTION)).strip()
    assert str(await query_engine.aquery(QUESTION)).strip()


async def test_structured_rerank(llm: DiffusionGemma) -> None:
    rerank = StructuredLLMRerank(llm=llm, top_n=2)
    with model_may_name_none():
        assert len(rerank.postprocess_nodes(NODES, QueryBundle(QUESTION))) <= 2


async def test_function_calling_program(llm: DiffusionGemma) -> None:
    prompt = PromptTemplate(f"{PASSAGES[0]}\n\nExtract the facts about {{what}} as JSON.")
    program = FunctionCallingProgram.from_defaults(output_cls=Bridge, prompt=prompt, llm=llm)
    assert isinstance(program(what="the Vexal bridge"), Bridge)
    assert isinstance(await program.acall(what="the Vexal bridge"), Bridge)
    several = FunctionCallingProgram.from_defaults(
        output_cls=Bridge, prompt=prompt, llm=llm, allow_parallel_tool_calls=True
    )
    found = several(what="the Vexal bridge")
    assert isinstance(found, list)
    assert all(isinstance(bridge, Bridge) for bridge in found)


@pytest.mark.parametrize("kind", ["schema", "dynamic"])
def test_property_graphs_with_a_schema(llm: DiffusionGemma, kind: str) -> None:
    extractor: Any
    if kind == "schema":
        extractor = SchemaLLMPathExtractor(
            llm=llm,
            possible_entities=Literal["BRIDGE", "RIVER"],
            possible_relations=Literal["CROSSES"],
            max_triplets_per_chunk=2,
            strict=False,
        )
    else:
        extractor = DynamicLLMPathExtractor(llm=llm, max_triplets_per_chunk=2)
    index = PropertyGraphIndex.from_documents(
        [Document(text=PASSAGES[0])],
        llm=llm,
        kg_extractors=[extractor],
        embed_model=MockEmbedding(embed_dim=8),
        embed_kg_nodes=False,
        show_progress=False,
    )
    assert index.property_graph_store is not None
    assert (
        index.property_graph_store.get_llama_nodes([node.node_id for node in index.docstore.docs.values()]) is not None
    )


def test_knowledge_graph_index(llm: DiffusionGemma) -> None:
    index = KnowledgeGraphIndex.from_documents(
        [Document(text=PASSAGES[0])], llm=llm, max_triplets_per_chunk=2, embed_model=MockEmbedding(embed_dim=8)
    )
    # Triplets are read from prose, as far as the model writes some; the passage is indexed either way.
    assert len(index.docstore.docs) == 1
    assert str(index.as_query_engine(llm=llm).query(QUESTION)).strip()


def test_questions_to_a_database(llm: DiffusionGemma) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE bridges (name TEXT, year INTEGER)"))
        connection.execute(sqlalchemy.text("INSERT INTO bridges VALUES ('Vexal bridge', 1931)"))
    query_engine = NLSQLTableQueryEngine(SQLDatabase(engine), tables=["bridges"], llm=llm, embed_model=MockEmbedding(8))
    # What this model writes is hardly SQL; LlamaIndex hands the database's complaint to it and answers all the same.
    response = query_engine.query("When was the Vexal bridge built?")
    assert str(response).strip()
    assert "sql_query" in (response.metadata or {})


async def test_code_act_agent(llm: DiffusionGemma) -> None:
    async def execute(code: str) -> str:
        return "done"

    agent = CodeActAgent(code_execute_fn=execute, llm=llm, tools=[])
    assert str(await agent.run("Hello", max_iterations=3)).strip()
