"""The engine's answers as results of LangChain's string models, whole and in chunks."""

from __future__ import annotations

from typing import Any

from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from dgemma_core.api.events import BlockEvent, FinishedEvent
from dgemma_core.api.events import Generation as EngineGeneration
from dgemma_integrations.langchain.responses import generation_info


def _info(answer: EngineGeneration, model: str) -> dict[str, Any]:
    return {**generation_info(answer, model), "token_usage": _usage([answer])}


def _usage(answers: list[EngineGeneration]) -> dict[str, int]:
    prompt = sum(answer.usage.prompt_tokens for answer in answers)
    completion = sum(answer.usage.completion_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cached_tokens": sum(answer.usage.cached_tokens for answer in answers),
    }


def llm_result(answers: list[EngineGeneration], model: str) -> LLMResult:
    """The result of ``generate``: one answer for each prompt."""
    return LLMResult(
        generations=[[Generation(text=answer.text, generation_info=_info(answer, model))] for answer in answers],
        llm_output={"token_usage": _usage(answers), "model_name": model},
    )


def completion_chunk(event: BlockEvent | FinishedEvent, model: str) -> GenerationChunk:
    """A block's text as a chunk. The last chunk has no text but the metadata, so that it is merged once."""
    if isinstance(event, BlockEvent):
        return GenerationChunk(text=event.text)
    return GenerationChunk(text="", generation_info=_info(event.generation, model))


def merged_result(chunks: list[GenerationChunk]) -> LLMResult:
    """The result of a single prompt whose answer was streamed."""
    info = chunks[-1].generation_info or {}
    generation = Generation(text="".join(chunk.text for chunk in chunks), generation_info=info)
    output = {"token_usage": info["token_usage"], "model_name": info["model_name"]}
    return LLMResult(generations=[[generation]], llm_output=output)
