"""The string model."""

from __future__ import annotations

from typing import Any

import pytest

from dgemma_core import Engine
from dgemma_integrations.langchain import (
    ChatDiffusionGemma,
    DiffusionGemmaLLM,
)
from tests.integrations.langchain.conftest import METADATA, PROMPT


async def test_all_four_ways_of_the_string_model(llm: DiffusionGemmaLLM) -> None:
    answer = llm.invoke(PROMPT)
    assert answer
    assert await llm.ainvoke(PROMPT) == answer
    assert "".join(llm.stream(PROMPT)) == answer
    assert "".join([text async for text in llm.astream(PROMPT)]) == answer


def test_the_string_model_asks_as_a_user_or_raw(
    settings: dict[str, Any], llm: DiffusionGemmaLLM, chat: ChatDiffusionGemma, engine: Engine
) -> None:
    assert llm.invoke(PROMPT) == chat.invoke(PROMPT).text
    raw = DiffusionGemmaLLM(**settings, raw=True)
    usage = raw.generate([PROMPT]).llm_output["token_usage"]
    assert usage["prompt_tokens"] == engine.count_tokens(PROMPT) < chat.invoke(PROMPT).usage_metadata["input_tokens"]


async def test_the_string_model_batches_all_prompts(tiny_checkpoint: str) -> None:
    llm = DiffusionGemmaLLM(model=tiny_checkpoint, max_context=301, max_tokens=30, seed=1)
    prompts = [f"{PROMPT} {number}" for number in range(8)]
    result = llm.generate(prompts)
    assert llm._engine().stats().max_batch == 8
    assert [g[0].text for g in result.generations] == llm.batch(prompts) == await llm.abatch(prompts)
    infos = [g[0].generation_info for g in result.generations]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"):
        assert result.llm_output["token_usage"][name] == sum(info["token_usage"][name] for info in infos)
    assert all(set(info) == METADATA | {"token_usage"} for info in infos)
    with pytest.raises(ValueError, match="DiffusionGemmaLLM: unknown keyword argument 'max_token'"):
        llm.batch(prompts, max_token=3)
