"""Constructor, cache keys, copies: everything that happens without a request."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool

from dgemma_core import Engine, Grammar, LoadSpec
from dgemma_core.errors import CheckpointError
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
from tests.checkpoints import make_model, make_tokenizer


@tool
def get_weight(name: str) -> str:
    """Gets the weight of something."""
    return "512 kilograms"


BOTH = pytest.mark.parametrize("model_class", [ChatDiffusionGemma, DiffusionGemmaLLM])
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
]


def test_importing_and_constructing_load_nothing_heavy(repository: Path) -> None:
    program = (
        "import sys\n"
        "from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM\n"
        "ChatDiffusionGemma(seed=1), DiffusionGemmaLLM(seed=1)\n"
        "found = [m for m in ('torch', 'transformers', 'llama_index') if m in sys.modules]\n"
        "sys.exit(f'loaded: {found}' if found else 0)\n"
    )
    path = [str(repository / "core"), str(repository)]
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{program}"], timeout=120)
    assert done.returncode == 0


@pytest.mark.alone
@BOTH
def test_constructors_are_cheap(model_class: type[ChatDiffusionGemma]) -> None:
    model_class()
    began = time.perf_counter()
    for _ in range(300):
        model_class(temperature=0, max_tokens=100, stop=["x"])
    assert time.perf_counter() - began < 1.0


@BOTH
@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"max_token": 3}, r"'max_token' \(did you mean 'max_tokens'\?\)"),
        ({"api_key": "x"}, "'api_key'"),
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": 1, "t_max": 1.0}, "not both"),
        ({"t_min": 0.9, "t_max": 0.5}, "t_max=0.5 is below"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"seed": -1}, "seed=-1"),
        ({"stop": [""]}, "non-empty"),
        ({"quantization": "int3"}, "quantization='int3'"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"timeout": 0}, "timeout=0"),
        ({"engine": "embedded"}, "engine='embedded'"),
        ({"model": ""}, "model=''"),
    ],
)
def test_bad_keywords_are_refused_by_name(
    model_class: type[ChatDiffusionGemma], keywords: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        model_class(**keywords)


@BOTH
def test_accepted_keywords(model_class: type[ChatDiffusionGemma]) -> None:
    import torch

    model = model_class(
        model=Path("some/folder"),
        stop="x",
        device=torch.device("cpu"),
        dtype=torch.float32,
        max_retries=2,
        streaming=True,
    )
    assert (model.model, model.stop, model.device, model.dtype) == ("some/folder", ["x"], "cpu", "float32")


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


def test_tracing_parameters() -> None:
    chat = ChatDiffusionGemma(model="a/b", temperature=0.5, max_tokens=9, stop=["x"])
    assert chat._get_ls_params() == {
        "ls_provider": "diffusiongemma",
        "ls_model_type": "chat",
        "ls_model_name": "a/b",
        "ls_temperature": 0.5,
        "ls_max_tokens": 9,
        "ls_stop": ["x"],
    }
    assert chat._get_ls_params(stop=["y"], model="c/d")["ls_model_name"] == "c/d"
    assert chat._get_ls_params(stop=["y"])["ls_stop"] == ["y"]
    assert DiffusionGemmaLLM()._get_ls_params()["ls_provider"] == "diffusiongemma"
    assert "dgemma" in chat.metadata["lc_versions"]
    assert (chat._llm_type, DiffusionGemmaLLM()._llm_type) == ("chat-diffusiongemma", "diffusiongemma")
    assert not chat.is_lc_serializable()


def test_profile_comes_from_the_config_alone(tiny_checkpoint: str) -> None:
    # Settings no other test has, so that the engine is a new one.
    chat = ChatDiffusionGemma(model=tiny_checkpoint, max_context=4000)
    assert chat.profile["max_input_tokens"] == 2048 == chat._engine().context_window
    assert chat._engine().stats().weight_loads == 0
    assert ChatDiffusionGemma(model=tiny_checkpoint, max_context=128).profile["max_input_tokens"] == 128
    assert chat.profile["tool_calling"]
    assert chat.profile["structured_output"]
    assert not chat.profile["audio_inputs"]
    assert "max_input_tokens" not in ChatDiffusionGemma(model="no/such-model").profile


@BOTH
def test_pickles_and_copies(model_class: type[ChatDiffusionGemma], engine: Engine) -> None:
    plain = model_class(model="a/b", seed=1, stop=["x"])
    assert pickle.loads(pickle.dumps(plain)) == plain
    assert copy.deepcopy(plain) == plain
    assert plain.model_copy(update={"seed": 2}).seed == 2

    held = model_class(engine=engine, seed=1)
    assert held.model == engine.spec.model
    assert copy.deepcopy(held).engine is engine
    assert held.model_copy().engine is engine
    loaded = pickle.loads(pickle.dumps(held))
    assert loaded.engine is None
    assert loaded._spec() == engine.spec


@BOTH
def test_an_engine_and_contradicting_load_settings(model_class: type[ChatDiffusionGemma], engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"dtype='bfloat16': the given engine has 'auto'"):
        model_class(engine=engine, dtype="bfloat16")
    other = model_class(engine=engine).model_copy(update={"model": "a/b"})
    with pytest.raises(ValueError, match="model='a/b'"):
        other.invoke("fox")


def test_same_settings_share_one_engine(tiny_checkpoint: str) -> None:
    chat = ChatDiffusionGemma(model=tiny_checkpoint, max_context=256, seed=1)
    llm = DiffusionGemmaLLM(model=tiny_checkpoint, max_context=256, seed=2)
    assert chat._engine() is llm._engine()
    assert chat._engine().spec == LoadSpec(model=tiny_checkpoint, max_context=256)


def test_configurable_fields_go_on_streaming(chat: ChatDiffusionGemma, engine: Engine) -> None:
    configurable = chat.configurable_fields(
        max_tokens=ConfigurableField(id="length"), seed=ConfigurableField(id="seed")
    )
    loads = engine.stats().weight_loads
    answer = configurable.invoke("fox", config={"configurable": {"length": 5}})
    assert answer.usage_metadata["output_tokens"] == 5
    assert len(list(configurable.stream("fox", config={"configurable": {"length": 40, "seed": 3}}))) > 2
    assert engine.stats().weight_loads == loads


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


def test_tool_declarations_count_as_tokens(embedded_engine: Engine) -> None:
    chat = ChatDiffusionGemma(engine=embedded_engine, temperature=0, max_tokens=32)
    plain = chat.get_num_tokens_from_messages([HumanMessage("fox")])
    counted = chat.get_num_tokens_from_messages([HumanMessage("fox")], tools=[get_weight])
    assert counted > plain
    used = chat.bind_tools([get_weight], tool_choice="any").invoke([HumanMessage("fox")]).usage_metadata
    assert used["input_tokens"] == counted


def test_fallbacks_and_retries(chat: ChatDiffusionGemma) -> None:
    answer = chat.invoke("fox").text
    missing = ChatDiffusionGemma(model="no/such-model")
    assert missing.with_fallbacks([chat]).invoke("fox").text == answer
    assert "".join(chunk.text for chunk in missing.with_fallbacks([chat]).stream("fox")) == answer
    assert chat.with_retry(stop_after_attempt=2).invoke("fox").text == answer
    with pytest.raises(CheckpointError, match="no/such-model"):
        missing.invoke("fox")


async def test_batches_share_steps(engine: Engine, chat: ChatDiffusionGemma) -> None:
    prompts = [f"fox {number}" for number in range(6)]
    alone = [chat.invoke(prompt).text for prompt in prompts]
    for run in (lambda: chat.abatch(prompts), lambda: asyncio.to_thread(chat.batch, prompts)):
        before = engine.stats()
        assert [answer.text for answer in await run()] == alone
        after = engine.stats()
        # A pass that serves one request alone counts as one of its steps.
        assert after.forward_passes - before.forward_passes < after.denoising_steps - before.denoising_steps
