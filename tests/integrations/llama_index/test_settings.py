"""Settings of the LLM and of one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dgemma_core import LoadSpec, SamplingParams
from dgemma_integrations.llama_index import DiffusionGemma
from tests.integrations.llama_index.conftest import CHAT, QUESTION


async def test_unknown_keywords_of_a_call_are_named(llm: DiffusionGemma) -> None:
    with pytest.raises(ValueError, match=r"DiffusionGemma: unknown keyword argument 'max_token'.*'max_tokens'"):
        llm.complete(QUESTION, max_token=3)
    with pytest.raises(ValueError, match="'top_n'"):
        llm.stream_chat(CHAT, top_n=9)
    with pytest.raises(ValueError, match="'top_n'"):
        await llm.achat(CHAT, top_n=9)
    with pytest.raises(ValueError, match="'top_n'"):
        await llm.astream_complete(QUESTION, top_n=9)


def test_what_llama_index_adds_to_calls_is_no_error(llm: DiffusionGemma) -> None:
    sent = {"extra_headers": {"x": "y"}, "tool_required": False, "tool_choice": None, "verbose": False, "tools": None}
    assert llm.chat(CHAT, **sent, allow_parallel_tool_calls=False).message.content == llm.chat(CHAT).message.content


def test_unknown_keywords_of_the_constructor_are_named() -> None:
    with pytest.raises(ValueError, match=r"DiffusionGemma: unknown keyword argument 'temprature'.*'temperature'"):
        DiffusionGemma(temprature=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -3),
        ("max_tokens", True),
        ("seed", -1),
        ("stop", [""]),
        ("stop", ["a", ""]),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("temperature", -0.1),
        ("entropy_bound", 0),
        ("canvas_length", 0),
        ("dtype", "float8"),
        ("quantization", "int3"),
        ("max_context", 0),
        ("model", " "),
    ],
)
def test_bad_settings_are_refused_by_the_constructor(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        DiffusionGemma(**{name: value})


def test_bad_settings_of_a_call_are_refused(llm: DiffusionGemma) -> None:
    for bad in ({"max_tokens": -1}, {"seed": 1.5}, {"stop": [""]}, {"timeout": -1}, {"timeout": True}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            llm.complete(QUESTION, **bad)
    with pytest.raises(ValueError, match="not both"):
        DiffusionGemma(temperature=0.9, t_max=1.0)


def test_torch_objects_and_paths_are_fine() -> None:
    llm = DiffusionGemma(model=Path("somewhere"), device=torch.device("cpu"), dtype=torch.bfloat16)
    assert (llm.model, llm.device, llm.dtype) == ("somewhere", "cpu", "bfloat16")


def test_every_setting_of_the_engine_is_a_public_field() -> None:
    fields = set(DiffusionGemma.model_fields)
    # A grammar belongs to one call, not to an object that makes many.
    assert SamplingParams.names() - {"max_new_tokens", "grammar"} <= fields
    assert set(LoadSpec.__dataclass_fields__) <= fields


def test_repr_names_what_was_set() -> None:
    assert repr(DiffusionGemma(max_tokens=5, stop="x")) == "DiffusionGemma(model='embedded', max_tokens=5, stop=('x',))"
    assert str(DiffusionGemma()) == "model='embedded'"
