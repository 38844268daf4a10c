"""The generated fields as mixins of a framework's model class."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dgemma_core.api import LoadSpec, SamplingParams
from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS, SAMPLING_SETTINGS
from dgemma_integrations.shared.fields import DraftFields, LoadFields, SamplingFields
from dgemma_integrations.shared.load_settings import LOAD_FIELDS, load_spec
from dgemma_integrations.shared.sampling_settings import sampling_params
from dgemma_integrations.shared.strict_numbers import StrictNumbers


class Framework(BaseModel):
    system_prompt: str | None = None


class Lax(LoadFields, SamplingFields, Framework):
    stop: list[str] | None = None


class Strict(StrictNumbers, LoadFields, SamplingFields, DraftFields, Framework):
    stop: tuple[str, ...] = ()


def test_the_fields_are_the_settings() -> None:
    assert {*LoadFields.model_fields} == {*LOAD_SETTINGS}
    assert {*SamplingFields.model_fields, *DraftFields.model_fields} == {*SAMPLING_SETTINGS}
    assert "grammar" not in SAMPLING_SETTINGS
    fields = LoadFields.model_fields | SamplingFields.model_fields | DraftFields.model_fields
    for name, setting in {**LOAD_SETTINGS, **SAMPLING_SETTINGS}.items():
        assert fields[name].description == setting.sentence


@pytest.mark.parametrize("model_class", [Lax, Strict])
def test_defaults_are_the_engines(model_class: type[Lax]) -> None:
    model = model_class()
    assert load_spec(**{name: getattr(model, name) for name in LOAD_FIELDS}) == LoadSpec()
    settings = {name: getattr(model, name) for name in SAMPLING_SETTINGS if name != "timeout" and hasattr(model, name)}
    assert sampling_params(settings, {}, owner="Model") == SamplingParams()


@pytest.mark.parametrize("keywords", [{"seed": True}, {"max_tokens": 2.0}, {"max_queue": "3"}, {"max_context": False}])
def test_integers_may_be_strict(keywords: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="valid integer"):
        Strict(**keywords)
    assert Lax(**keywords)


def test_strict_numbers_take_integers_and_none() -> None:
    assert Strict(seed=3, max_tokens=None, temperature=1).seed == 3
