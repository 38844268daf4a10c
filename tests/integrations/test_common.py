from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dgemma_core import LoadSpec, SamplingParams
from dgemma_integrations.shared.common import (
    aengine_for,
    engine_for,
    load_spec,
    reject_unknown,
    release,
    sampling_params,
)


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
    ("defaults", "overrides", "t_max", "t_min", "seed"),
    [
        ({}, {}, None, None, None),
        ({"temperature": 0}, {}, None, None, 0),
        ({"temperature": 0, "seed": 7}, {}, None, None, 7),
        ({"temperature": 0}, {"seed": 7}, None, None, 7),
        ({"temperature": 0}, {"temperature": 0.5}, None, None, None),
        ({"temperature": 0.8}, {}, None, None, None),
        ({"temperature": 1.2}, {}, 1.2, 0.6, None),
        ({"temperature": 1.2}, {"temperature": 0.3}, None, None, None),
        ({"temperature": 1.2}, {"t_max": 2.0}, 2.0, 0.6, None),
        ({"t_max": 2.0, "t_min": 1.0}, {"temperature": 0}, None, None, 0),
    ],
)
def test_temperature(
    defaults: dict[str, Any], overrides: dict[str, Any], t_max: float | None, t_min: float | None, seed: int | None
) -> None:
    params = merged(defaults, overrides)
    assert (params.t_max, params.t_min, params.seed) == (t_max, t_min, seed)


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


def test_every_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match="arguments 'bar', 'foo'"):
        reject_unknown(["foo", "seed", "bar"], ["seed"], owner="Model")


def test_load_spec_takes_torch_objects_and_defaults() -> None:
    import torch

    spec = load_spec("some/model", device=torch.device("cuda:1"), dtype=torch.bfloat16, max_queue=None)
    assert spec == LoadSpec(model="some/model", device="cuda:1", dtype="bfloat16")


def test_one_engine_per_spec_until_released(tiny_checkpoint: str) -> None:
    spec = LoadSpec(model=tiny_checkpoint, max_context=512)
    found = []
    threads = [threading.Thread(target=lambda: found.append(engine_for(spec))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = found[0]
    assert all(other is engine for other in found)
    assert asyncio.run(aengine_for(spec)) is engine
    assert engine.stats().weight_loads == 0
    release(spec)
    assert engine.closed
    release(spec)
    again = engine_for(spec)
    assert again is not engine
    assert not again.closed
    release(spec)


def test_an_engine_closed_by_somebody_else_is_replaced(tiny_checkpoint: str) -> None:
    spec = LoadSpec(model=tiny_checkpoint, max_context=513)
    engine = engine_for(spec)
    engine.close()
    assert engine_for(spec) is not engine
    release(spec)
