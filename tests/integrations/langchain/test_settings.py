"""Constructors and settings: what happens without a request."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool

from dgemma_core import Engine
from dgemma_core.errors import CheckpointError
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM


@tool
def get_weight(name: str) -> str:
    """Gets the weight of something."""
    return "512 kilograms"


BOTH = pytest.mark.parametrize("model_class", [ChatDiffusionGemma, DiffusionGemmaLLM])


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


def test_configurable_fields_go_on_streaming(chat: ChatDiffusionGemma, engine: Engine) -> None:
    configurable = chat.configurable_fields(
        max_tokens=ConfigurableField(id="length"), seed=ConfigurableField(id="seed")
    )
    loads = engine.stats().weight_loads
    answer = configurable.invoke("fox", config={"configurable": {"length": 5}})
    assert answer.usage_metadata["output_tokens"] == 5
    assert len(list(configurable.stream("fox", config={"configurable": {"length": 40, "seed": 3}}))) > 2
    assert engine.stats().weight_loads == loads


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
