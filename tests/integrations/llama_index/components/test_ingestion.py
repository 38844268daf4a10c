"""Extractors."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.extractors import (
    DocumentContextExtractor,
    KeywordExtractor,
    QuestionsAnsweredExtractor,
    SummaryExtractor,
    TitleExtractor,
)
from llama_index.core.schema import Document
from llama_index.core.storage.docstore import SimpleDocumentStore

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import MARKS, PASSAGES, WatchedEngine, passages

pytestmark = MARKS


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (KeywordExtractor, "excerpt_keywords"),
        (QuestionsAnsweredExtractor, "questions_this_excerpt_can_answer"),
        (SummaryExtractor, "section_summary"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_extractors_work_on_several_nodes_at_a_time(
    llm: DiffusionGemma, engine: WatchedEngine, kind: Any, key: str
) -> None:
    found = kind(llm=llm, show_progress=False).extract(passages(5))
    assert [set(entry) for entry in found] == [{key}] * 5
    assert (len(engine.handles), engine.most_open) == (5, 4)
    assert await kind(llm=llm, show_progress=False, num_workers=5).aextract(passages(5)) == found
    assert (len(engine.handles), engine.most_open) == (10, 5)


def test_titles_come_one_after_the_other(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    found = TitleExtractor(llm=llm, nodes=2, show_progress=False).extract(passages(2))
    assert all(entry["document_title"] for entry in found)
    assert engine.most_open <= 2


async def test_document_context(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    document = Document(text=" ".join(PASSAGES), doc_id="document")
    store = SimpleDocumentStore()
    await store.async_add_documents([document])
    nodes = passages(3)
    for node in nodes:
        node.relationships = {"1": document.as_related_node_info()}  # type: ignore[dict-item]
    extractor = DocumentContextExtractor(docstore=store, llm=llm, max_context_length=2000, show_progress=False)
    found = await extractor.aextract(nodes)
    assert len(found) == 3
    # It sends max_tokens and headers of its own.
    assert (len(engine.handles), engine.most_open) == (3, 3)
