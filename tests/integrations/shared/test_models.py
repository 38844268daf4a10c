"""Both adapters' models take every setting of the engine."""

from __future__ import annotations

from typing import Any

import pytest

from dgemma_core.api import LoadSpec, SamplingParams
from dgemma_core.api.setting_table import Setting
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.shared.adapter_settings import DRAFTS, LOAD_SETTINGS, SAMPLING_SETTINGS

MODELS = [ChatDiffusionGemma, DiffusionGemmaLLM, DiffusionGemma]
ALL = {**LOAD_SETTINGS, **SAMPLING_SETTINGS}


def another(setting: Setting) -> Any:
    """A value that is not the default."""
    if setting.default == "auto" and setting.name == "threads":
        return 3
    if setting.choices:
        return next(choice for choice in setting.choices if choice != setting.default)
    if setting.base_type is bool:
        return not setting.default
    if setting.base_type is int:
        return int(setting.low or 0) + 5
    if setting.base_type is float:
        return 0.75
    return ("other",) if setting.default == () else "other"


def test_these_are_all_settings() -> None:
    own_names = {"max_tokens" if name == "max_new_tokens" else name for name in SamplingParams.names()}
    assert set(ALL) == set(LoadSpec.__dataclass_fields__) | own_names - {"grammar"} | {"temperature", "timeout"}


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("setting", ALL.values(), ids=ALL)
def test_a_setting_reaches_the_engine(model_class: Any, setting: Setting) -> None:
    name, value = setting.name, another(setting)
    if name in DRAFTS and model_class is not DiffusionGemma:
        with pytest.raises(ValueError, match=f"unknown keyword argument '{name}'"):
            model_class(**{name: value})
        return
    more = {"logprobs": True} if name == "top_logprobs" else {}
    model = model_class(**{name: value}, **more)
    plain = model_class()
    assert getattr(plain, name) in (setting.default, None)
    kept = getattr(model, name)
    assert (tuple(kept) if isinstance(kept, list) else kept) == value
    if name in LOAD_SETTINGS:
        assert getattr(model._spec(), name) == value
        return
    call = model._call({}) if model_class is DiffusionGemma else model._call(None, {})
    if name == "timeout":
        assert call.timeout == value
    else:
        assert call.params == SamplingParams(**{"max_new_tokens" if name == "max_tokens" else name: value}, **more)


@pytest.mark.parametrize("model_class", MODELS)
def test_editors_show_a_sentence_for_every_setting(model_class: Any) -> None:
    for name, setting in ALL.items():
        if name not in DRAFTS or model_class is DiffusionGemma:
            assert model_class.model_fields[name].description == setting.sentence
