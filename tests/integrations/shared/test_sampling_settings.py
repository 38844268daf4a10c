from __future__ import annotations

from typing import Any

import pytest

from dgemma_core import SamplingParams
from dgemma_integrations.shared.sampling_settings import sampling_params, with_drafts


def merged(defaults: dict[str, Any], overrides: dict[str, Any]) -> SamplingParams:
    return sampling_params(defaults, overrides, owner="Model")


def test_a_call_overrides_the_model_and_none_means_not_given() -> None:
    params = merged({"max_tokens": 8, "seed": 1, "stop": ["a"]}, {"max_tokens": 4, "seed": None, "stop": []})
    assert params == SamplingParams(max_new_tokens=4, seed=1, stop=())


def test_max_tokens_and_max_new_tokens_are_one_setting() -> None:
    assert merged({"max_tokens": 8}, {"max_new_tokens": 4}).max_new_tokens == 4
    with pytest.raises(ValueError, match="same setting"):
        merged({}, {"max_tokens": 8, "max_new_tokens": 4})


@pytest.mark.parametrize(
    ("defaults", "overrides", "expected"),
    [
        ({"temperature": 0}, {}, {"temperature": 0}),
        ({"temperature": 0}, {"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 1.2}, {"t_max": 2.0}, {"t_max": 2.0}),
        ({"t_max": 2.0, "t_min": 1.0}, {"temperature": 0}, {"temperature": 0}),
        ({"temperature": 1.2}, {"temperature": None}, {"temperature": 1.2}),
    ],
)
def test_temperature_and_the_schedule_replace_each_other(
    defaults: dict[str, Any], overrides: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merged(defaults, overrides) == SamplingParams(**expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": True}, "temperature=True"),
        ({"temperature": 1.0, "t_min": 0.4}, "not both"),
        ({"max_tokens": 0}, "^max_tokens=0"),
        ({"stop": [""]}, "non-empty"),
        ({"max_token": 3}, r"Model: unknown keyword argument 'max_token' \(did you mean 'max_tokens'\?\)\. Accepted: "),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    for defaults, overrides in ((settings, {}), ({}, settings)):
        with pytest.raises(ValueError, match=message):
            merged(defaults, overrides)


def test_a_call_turns_off_what_the_model_returns_with_log_probabilities() -> None:
    params = merged({"logprobs": True, "top_logprobs": 5}, {"logprobs": False})
    assert (params.logprobs, params.top_logprobs) == (False, 0)
    assert merged({"logprobs": True, "top_logprobs": 5}, {"top_logprobs": 2}).top_logprobs == 2


def test_drafts_that_cannot_be_are_refused_under_the_name_that_asks_for_them() -> None:
    assert with_drafts(SamplingParams(), "on_draft").drafts
    with pytest.raises(ValueError, match=r"^on_draft has no meaning with decoding='typewriter'"):
        with_drafts(SamplingParams(decoding="typewriter"), "on_draft")
