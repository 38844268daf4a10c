"""The engine's answers as results of LangChain's string models, whole and in chunks."""

from __future__ import annotations

from typing import Any

from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from dgemma_core.api.events import BlockEvent, FinishedEvent
from dgemma_core.api.events import Generation as EngineGeneration
from dgemma_integrations.langchain.responses import generation_info
from dgemma_integrations.shared.logprobs import completion_logprobs


def _info(answer: EngineGeneration, model: str) -> dict[str, Any]:
    return {**generation_info(answer, model), "token_usage": _usage([answer])}


def _whole_info(answer: EngineGeneration, model: str) -> dict[str, Any]:
    info = _info(answer, model)
    return info if answer.logprobs is None else {**info, "logprobs": completion_logprobs(answer.logprobs)}


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
        generations=[[Generation(text=answer.text, generation_info=_whole_info(answer, model))] for answer in answers],
        llm_output={"token_usage": _usage(answers), "model_name": model},
    )


class CompletionWriter:
    """Turns a request's events into chunks that add up to the answer of ``generate``.

    Args:
        model: the model's name.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._length = 0  # Characters of the text so far.

    def chunk(self, event: BlockEvent | FinishedEvent) -> GenerationChunk:
        """The next chunk. The last one has no text but the metadata, so that they are merged once."""
        if isinstance(event, FinishedEvent):
            return GenerationChunk(text="", generation_info=_info(event.generation, self._model))
        info = None
        if event.logprobs is not None:
            info = {"logprobs": completion_logprobs(event.logprobs, self._length)}
        self._length += len(event.text)
        return GenerationChunk(text=event.text, generation_info=info)


def merged_result(chunks: list[GenerationChunk]) -> LLMResult:
    """The result of a single prompt whose answer was streamed."""
    info = dict(chunks[-1].generation_info or {})
    parts = [chunk.generation_info["logprobs"] for chunk in chunks[:-1] if chunk.generation_info]
    if parts:
        info["logprobs"] = {name: [one for part in parts for one in part[name]] for name in parts[0]}
    generation = Generation(text="".join(chunk.text for chunk in chunks), generation_info=info)
    output = {"token_usage": info["token_usage"], "model_name": info["model_name"]}
    return LLMResult(generations=[[generation]], llm_output=output)
