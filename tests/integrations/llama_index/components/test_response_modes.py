"""Response synthesizers: what ``test_query_engines.py`` leaves out."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import MARKS, PASSAGES, QUESTION, WatchedEngine, scored

pytestmark = MARKS


async def test_compact_accumulate(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode.COMPACT_ACCUMULATE)
    response = synthesizer.synthesize(QUESTION, scored())
    assert str(await synthesizer.asynthesize(QUESTION, scored())) == str(response)
    assert str(response).startswith("Response 1: ")
    assert len(response.source_nodes) == 4
    assert len(engine.handles) == 2


@pytest.mark.parametrize("mode", ["no_text", "context_only"])
async def test_modes_without_an_answer_ask_nothing(llm: DiffusionGemma, engine: WatchedEngine, mode: str) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode(mode))
    assert len(synthesizer.synthesize(QUESTION, scored()).source_nodes) == 4
    assert len((await synthesizer.asynthesize(QUESTION, scored())).source_nodes) == 4
    assert engine.handles == []


@pytest.mark.parametrize("mode", ["accumulate", "compact_accumulate"])
def test_modes_with_several_answers_refuse_to_stream(llm: DiffusionGemma, mode: str) -> None:
    synthesizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode(mode), streaming=True)
    with pytest.raises(ValueError, match="Unable to stream"):
        synthesizer.synthesize(QUESTION, scored())


@pytest.mark.parametrize(
    ("mode", "requests", "at_once"),
    [
        ("accumulate", 4, 4),
        ("tree_summarize", 5, 4),
        ("refine", 4, 1),
        ("simple_summarize", 1, 1),
        ("generation", 1, 1),
    ],
)
async def test_how_many_requests_a_mode_has_at_a_time(
    llm: DiffusionGemma, engine: WatchedEngine, mode: str, requests: int, at_once: int
) -> None:
    def synthesizer(**options: Any) -> Any:
        # Chunks so small that every node is one, and not so small that the answers of four are two.
        # Counted in words: whatever tokenizer LlamaIndex's settings hold.
        helper = PromptHelper(
            context_window=4096, num_output=8, chunk_size_limit=50, chunk_overlap_ratio=0.0, tokenizer=str.split
        )
        return get_response_synthesizer(llm=llm, response_mode=ResponseMode(mode), prompt_helper=helper, **options)

    nodes = [NodeWithScore(node=TextNode(text=f"{text} " * 6), score=0.5) for text in PASSAGES]
    response = str(synthesizer().synthesize(QUESTION, nodes))
    assert (len(engine.handles), engine.most_open) == (requests, 1)
    engine_before = len(engine.handles)
    assert str(await synthesizer().asynthesize(QUESTION, nodes)) == response
    assert (len(engine.handles) - engine_before, engine.most_open) == (requests, at_once)
    if mode in ("accumulate", "tree_summarize"):
        assert str(synthesizer(use_async=True).synthesize(QUESTION, nodes)) == response
