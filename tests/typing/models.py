"""What a type checker knows of the models' keyword arguments. ``make lint`` reads it; nothing runs it.

An error that no longer comes makes its ``type: ignore`` unused, which is an error too.
"""

from __future__ import annotations

from typing import assert_type

from langchain_core.messages import AIMessage, AIMessageChunk
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from dgemma_core import Engine as LocalEngine
from dgemma_core.api import Engine, LoadSpec
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM
from dgemma_integrations.langchain.middleware import DiffusionGemmaGuard, DiffusionGemmaRouter
from dgemma_integrations.llama_index import (
    DiffusionGemma,
    DiffusionGemmaEvaluator,
    DiffusionGemmaGuidelineEvaluator,
    DiffusionGemmaRerank,
    DiffusionGemmaSelector,
)

DiffusionGemma()
DiffusionGemma(temperature=1, max_queue=3, stop=["."], drafts=True, thinking=True, system_prompt="Be brief.")
DiffusionGemma(engine=LocalEngine(LoadSpec()), stop=".")
DiffusionGemma(tempature=1)  # type: ignore[call-arg]
DiffusionGemma(max_tokens="3")  # type: ignore[arg-type]
DiffusionGemma(engine="embedded")  # type: ignore[arg-type]
DiffusionGemma(given_engine=None)  # type: ignore[call-arg]
assert_type(DiffusionGemma().engine, Engine)
assert_type(DiffusionGemma().max_tokens, int | None)

ChatDiffusionGemma()
ChatDiffusionGemma(temperature=1, max_queue=3, stop=["."], thinking=True, cache=True)
ChatDiffusionGemma(engine=LocalEngine(LoadSpec()), stop=".")
ChatDiffusionGemma(tempature=1)  # type: ignore[call-arg]
ChatDiffusionGemma(max_tokens="3")  # type: ignore[arg-type]
ChatDiffusionGemma(engine="embedded")  # type: ignore[arg-type]
assert_type(ChatDiffusionGemma().engine, Engine | None)

DiffusionGemmaLLM(temperature=1, raw=True)
DiffusionGemmaLLM(tempature=1)  # type: ignore[call-arg]
DiffusionGemmaLLM(max_tokens="3")  # type: ignore[arg-type]

# --- other classes ---

DiffusionGemmaClassifier(questions={}, draws=2, device="cpu")
DiffusionGemmaClassifier(questions={}, drws=2)  # type: ignore[call-arg]
DiffusionGemmaRouter({}, device="cpu", draws=2)
DiffusionGemmaRouter({}, devise="cpu")  # type: ignore[call-arg]
DiffusionGemmaGuard("Is it rude?", seed=1)
DiffusionGemmaGuard("Is it rude?", sed=1)  # type: ignore[call-arg]
DiffusionGemmaRerank(top_n=3, threshold=0.5, draws=2)
DiffusionGemmaRerank(topn=3)  # type: ignore[call-arg]
DiffusionGemmaSelector.from_defaults(multi=True)
DiffusionGemmaSelector.from_defaults(mult=True)  # type: ignore[call-arg]
DiffusionGemmaEvaluator(thresh=0.5)  # type: ignore[call-arg]
DiffusionGemmaGuidelineEvaluator(threshold=0.5)
DiffusionGemmaGuidelineEvaluator(thresh=0.5)  # type: ignore[call-arg]

# --- answers and streams ---


class _Bridge(BaseModel):
    built: int


def _llama_index(llm: DiffusionGemma, messages: list[ChatMessage]) -> None:
    assert_type(llm.complete("x"), CompletionResponse)
    assert_type(llm.chat(messages), ChatResponse)
    for part in llm.stream_complete("x"):
        assert_type(part, CompletionResponse)
        assert_type(part.delta, str | None)
    for answer in llm.stream_chat(messages):
        assert_type(answer, ChatResponse)
        assert_type(answer.delta, str | None)
    assert_type(llm.structured_predict(_Bridge, PromptTemplate("x")), _Bridge)
    llm.compleet("x")  # type: ignore[attr-defined]
    llm.complete()  # type: ignore[call-arg]
    llm.chat("x")  # type: ignore[arg-type]


async def _llama_index_async(llm: DiffusionGemma, messages: list[ChatMessage]) -> None:
    assert_type(await llm.acomplete("x"), CompletionResponse)
    assert_type(await llm.achat(messages), ChatResponse)
    async for part in await llm.astream_complete("x"):
        assert_type(part, CompletionResponse)
    async for answer in await llm.astream_chat(messages):
        assert_type(answer.delta, str | None)
    assert_type(await llm.astructured_predict(_Bridge, PromptTemplate("x")), _Bridge)


async def _langchain(chat: ChatDiffusionGemma, llm: DiffusionGemmaLLM) -> None:
    assert_type(chat.invoke("x"), AIMessage)
    assert_type(await chat.ainvoke("x"), AIMessage)
    assert_type(chat.batch(["x"]), list[AIMessage])
    assert_type(await chat.abatch(["x"]), list[AIMessage])
    assert_type(llm.batch(["x"]), list[str])
    for chunk in chat.stream("x"):
        assert_type(chunk, AIMessageChunk)
    async for chunk in chat.astream("x"):
        assert_type(chunk, AIMessageChunk)
    assert_type(llm.invoke("x"), str)
    for text in llm.stream("x"):
        assert_type(text, str)
