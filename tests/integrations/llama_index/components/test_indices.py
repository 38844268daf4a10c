"""Indices that ask the model while they are built."""

from __future__ import annotations

import pytest
from llama_index.core import DocumentSummaryIndex, KeywordTableIndex, PropertyGraphIndex, TreeIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.indices.property_graph import LLMSynonymRetriever, SimpleLLMPathExtractor
from llama_index.core.schema import Document

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import MARKS, PASSAGES, QUESTION, WatchedEngine, passages

pytestmark = MARKS


def test_property_graph(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    index = PropertyGraphIndex(
        passages(5),
        llm=llm,
        embed_model=MockEmbedding(embed_dim=8),
        kg_extractors=[SimpleLLMPathExtractor(llm=llm)],
        show_progress=False,
    )
    assert (len(engine.handles), engine.most_open) == (5, 4)
    synonyms = LLMSynonymRetriever(index.property_graph_store, llm=llm, include_text=False)
    assert isinstance(index.as_retriever(sub_retrievers=[synonyms]).retrieve(QUESTION), list)
    assert len(engine.handles) == 6


@pytest.mark.parametrize(("use_async", "at_once"), [(False, 1), (True, 2)])
def test_tree_index(llm: DiffusionGemma, engine: WatchedEngine, use_async: bool, at_once: int) -> None:
    # Two children each: two summaries over four passages.
    index = TreeIndex(passages(4), llm=llm, num_children=2, use_async=use_async)
    assert (len(engine.handles), engine.most_open) == (2, at_once)
    response = index.as_query_engine(llm=llm, retriever_mode="root").query(QUESTION)
    assert len(response.source_nodes) == 2
    assert index.as_query_engine(llm=llm, retriever_mode="all_leaf").query(QUESTION).source_nodes


@pytest.mark.parametrize("use_async", [False, True])
def test_keyword_table(llm: DiffusionGemma, engine: WatchedEngine, use_async: bool) -> None:
    index = KeywordTableIndex(passages(3), llm=llm, use_async=use_async)
    # Even its async build takes one node after the other.
    assert (len(engine.handles), engine.most_open) == (3, 1)
    assert isinstance(index.as_retriever().retrieve(QUESTION), list)
    assert len(engine.handles) == 4


def test_document_summary_index(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    documents = [Document(text=text, doc_id=f"document-{i}") for i, text in enumerate(PASSAGES[:2])]
    index = DocumentSummaryIndex.from_documents(
        documents, llm=llm, embed_model=MockEmbedding(embed_dim=8), show_progress=False
    )
    assert index.get_document_summary("document-0")
    assert len(engine.handles) == 2
    found = index.as_retriever(retriever_mode="embedding", similarity_top_k=1).retrieve(QUESTION)
    assert len(found) == 1
