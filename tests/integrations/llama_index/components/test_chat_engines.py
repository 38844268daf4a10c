"""Chat engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.query_engine import (
    RetrieverQueryEngine,
)

from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.components.conftest import MARKS, PASSAGES, QUESTION, WatchedEngine, collect

pytestmark = MARKS


def chat_engine(kind: Any, llm: DiffusionGemma, retriever: Any, query_engine: RetrieverQueryEngine) -> Any:
    if kind is SimpleChatEngine:
        return kind.from_defaults(llm=llm, system_prompt="Be brief.")
    if kind is CondenseQuestionChatEngine:
        return kind.from_defaults(query_engine=query_engine, llm=llm)
    return kind.from_defaults(retriever=retriever, llm=llm)


@pytest.mark.parametrize(
    ("kind", "second_turn"),
    [
        (SimpleChatEngine, 1),
        (ContextChatEngine, 1),
        # These rewrite the question first.
        (CondenseQuestionChatEngine, 2),
        (CondensePlusContextChatEngine, 2),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_chat_engines(
    llm: DiffusionGemma,
    engine: WatchedEngine,
    retriever: Callable[..., Any],
    query_engine: RetrieverQueryEngine,
    kind: Any,
    second_turn: int,
) -> None:
    async def talk(how: str) -> list[str]:
        # Condensing streams only where the engine behind it does.
        behind = query_engine
        if kind is CondenseQuestionChatEngine and "stream" in how:
            behind = RetrieverQueryEngine.from_args(retriever(*PASSAGES), llm=llm, streaming=True)
        talking = chat_engine(kind, llm, retriever(*PASSAGES), behind)
        answers = []
        for message in (QUESTION, "And the museum?"):
            before = len(engine.handles)
            response = getattr(talking, how)(message)
            if how.startswith("a"):
                response = await response
            if how == "stream_chat":
                answers.append("".join(response.response_gen))
            elif how == "astream_chat":
                answers.append(await collect(response.async_response_gen()))
            else:
                answers.append(response.response)
                assert bool(response.source_nodes) == (kind is not SimpleChatEngine)
        assert len(engine.handles) - before == second_turn
        assert [m.role.value for m in talking.chat_history if m.role.value != "system"] == ["user", "assistant"] * 2
        return answers

    first = await talk("chat")
    assert [await talk(how) for how in ("achat", "stream_chat", "astream_chat")] == [first] * 3
    assert engine.most_open == 1


def test_usage_is_counted(llm: DiffusionGemma, engine: WatchedEngine, query_engine: RetrieverQueryEngine) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm.callback_manager = CallbackManager([counter])
    query_engine.query(QUESTION)
    (handle,) = engine.handles
    assert counter.prompt_llm_token_count == handle.result().usage.prompt_tokens
    assert counter.completion_llm_token_count == handle.result().usage.completion_tokens
