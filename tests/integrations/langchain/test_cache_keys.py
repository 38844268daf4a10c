"""LangChain's caches tell answers of different settings apart."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache

from dgemma_core import Engine, Grammar
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
from tests.checkpoints import make_model, make_tokenizer

DIFFERENT: list[dict[str, Any]] = [
    {},
    {"model": "a/b"},
    {"revision": "main"},
    {"device": "cpu"},
    {"dtype": "float32"},
    {"quantization": "int8"},
    {"max_context": 64},
    {"max_tokens": 3},
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"seed": 1},
    {"stop": ["x"]},
    {"stop": ["y"]},
    {"max_denoising_steps": 3},
    {"entropy_bound": 0.2},
    {"t_min": 0.3},
    {"t_max": 0.9},
    {"stability_threshold": 2},
    {"confidence_threshold": 0.1},
    {"canvas_length": 8},
    {"stop_at_eos": False},
    {"decoding": "diffusion"},
    {"decoding": "verified"},
    {"decoding": "typewriter"},
    {"top_k": 5},
    {"top_p": 0.9},
    {"min_p": 0.1},
    {"logprobs": True},
    {"logprobs": True, "top_logprobs": 2},
]


def test_different_settings_have_different_cache_keys() -> None:
    keys = {ChatDiffusionGemma(**keywords)._get_llm_string() for keywords in DIFFERENT}
    assert len(keys) == len(DIFFERENT)
    assert ChatDiffusionGemma(seed=1)._get_llm_string() == ChatDiffusionGemma(seed=1)._get_llm_string()


def test_a_calls_own_settings_are_in_the_cache_key() -> None:
    chat = ChatDiffusionGemma(temperature=0.0, stop=["x"])
    calls: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0},
        {"stop": ["y"]},
        {"max_tokens": 3},
        {"seed": 4},
        {"model": "a/b"},
        {"decoding": "typewriter"},
        {"top_p": 0.9},
        {"logprobs": True},
    ]
    assert len({chat._get_llm_string(**call) for call in calls}) == len(calls)


def test_a_setting_of_none_is_no_other_models_key() -> None:
    hot, plain = ChatDiffusionGemma(temperature=1.5), ChatDiffusionGemma()
    assert hot._get_llm_string(temperature=None) != plain._get_llm_string()


def test_cached_chat_answers_follow_the_settings(settings: dict[str, Any]) -> None:
    cache = InMemoryCache()
    chat = ChatDiffusionGemma(**settings, cache=cache)
    long, short = chat.invoke("fox"), chat.invoke("fox", max_tokens=5)
    assert chat.invoke("fox").text == long.text != short.text
    assert chat.invoke("fox").usage_metadata.get("total_cost") == 0
    assert ChatDiffusionGemma(**settings | {"seed": 4}, cache=cache).invoke("fox").text != long.text


def test_cached_string_answers_follow_the_settings(settings: dict[str, Any], engine: Engine) -> None:
    llm = DiffusionGemmaLLM(**settings, cache=InMemoryCache())
    long, short = llm.invoke("fox"), llm.invoke("fox", max_tokens=5)
    submitted = engine.stats().submitted
    assert llm.invoke("fox") == long != short == llm.invoke("fox", max_tokens=5)
    assert engine.stats().submitted == submitted


def test_two_models_in_memory_do_not_share_a_key() -> None:
    engines = [Engine.from_model(make_model(seed=seed), make_tokenizer()) for seed in (0, 1)]
    keys = {ChatDiffusionGemma(engine=engine)._get_llm_string() for engine in engines}
    assert len(keys) == 2
    with pytest.raises(pickle.PicklingError, match="from_model"):
        pickle.dumps(ChatDiffusionGemma(engine=engines[0]))
    for engine in engines:
        engine.close()


def test_tools_and_formats_are_in_the_cache_key() -> None:
    """LangChain's caches would otherwise take an answer without tools for one with them."""
    chat = ChatDiffusionGemma(temperature=0)

    def schema(name: str) -> dict[str, Any]:
        return {"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]}

    def declared(name: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name, "description": "", "parameters": schema("x")}}

    def format_of(name: str) -> dict[str, Any]:
        return {"type": "json_schema", "json_schema": {"name": "A", "schema": schema(name)}}

    calls: list[dict[str, Any]] = [
        {},
        {"tools": [declared("a")]},
        {"tools": [declared("b")]},
        {"tools": [declared("a")], "tool_choice": "any"},
        {"tools": [declared("a")], "parallel_tool_calls": False},
        {"response_format": format_of("a")},
        {"response_format": format_of("b")},
        {"grammar": Grammar.regex("[0-9]+")},
        {"grammar": Grammar.regex("[a-z]+")},
    ]
    assert len({chat._get_llm_string(**call) for call in calls}) == len(calls)
    assert chat._get_llm_string() != ChatDiffusionGemma(temperature=0, parallel_tool_calls=False)._get_llm_string()
