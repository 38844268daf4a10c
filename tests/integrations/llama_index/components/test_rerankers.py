"""LlamaIndex's own rerankers."""

from __future__ import annotations

from llama_index.core.postprocessor import LLMRerank
from llama_index.core.postprocessor.rankGPT_rerank import RankGPTRerank

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import MARKS, QUESTION, WatchedEngine, parsed, scored

pytestmark = MARKS


async def test_llm_rerank(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    rerank = LLMRerank(llm=llm, choice_batch_size=2, top_n=3)
    # Its parser reads lines "Doc: 1, Relevance: 7"; a line with a comma and no numbers is a ValueError or IndexError.
    ranked = parsed(lambda: rerank.postprocess_nodes(scored(6), query_str=QUESTION), ValueError, IndexError)
    assert ranked is None or len(ranked) <= 3
    assert engine.most_open == 1
    before = len(engine.handles)
    try:
        assert await rerank.apostprocess_nodes(scored(6), query_str=QUESTION) == ranked
    except (ValueError, IndexError):
        assert ranked is None
    assert (len(engine.handles) - before, engine.most_open) == (3, 3)


async def test_rank_gpt(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    rerank = RankGPTRerank(llm=llm, top_n=2)
    ranked = rerank.postprocess_nodes(scored(), query_str=QUESTION)
    assert len(ranked) == 2
    assert await rerank.apostprocess_nodes(scored(), query_str=QUESTION) == ranked
    assert len(engine.handles) == 2
