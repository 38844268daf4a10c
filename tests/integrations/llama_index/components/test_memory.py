"""Memory that summarizes."""

from __future__ import annotations

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatSummaryMemoryBuffer, FactExtractionMemoryBlock

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import MARKS, PASSAGES, RESPONSE, WatchedEngine

pytestmark = MARKS


def test_chat_summary_memory(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    history = [
        ChatMessage(role=role, content=f"{PASSAGES[i % 4]} {i}") for i, role in enumerate(["user", "assistant"] * 4)
    ]
    memory = ChatSummaryMemoryBuffer.from_defaults(history, llm=llm, token_limit=40, tokenizer_fn=str.split)
    kept = memory.get()
    assert kept[0].role.value == "system"
    assert len(kept) < 8
    assert len(engine.handles) == 1


async def test_fact_extraction_memory(llm: DiffusionGemma, engine: WatchedEngine) -> None:
    block = FactExtractionMemoryBlock(name="facts", llm=llm, max_facts=5)
    await block.aput([ChatMessage(role="user", content=RESPONSE), ChatMessage(role="assistant", content="I see.")])
    assert len(engine.handles) == 1
    assert isinstance(block.facts, list)
