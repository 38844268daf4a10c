"""Numbers of numpy and torch as settings: they count as Python's own, in comparisons, hashes and JSON."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from dgemma_core.api import Grammar, Hole, LoadSpec, Request, SamplingParams
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.questions import check_draws
from dgemma_core.engine.engine import Engine

THREES = [np.int64(3), np.int32(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor([3], dtype=torch.int16)]
HALVES = [np.float64(0.5), np.float32(0.5), np.float16(0.5), torch.tensor(0.5, dtype=torch.bfloat16), Fraction(1, 2)]


@pytest.mark.parametrize("value", THREES, ids=repr)
def test_integers_of_numpy_and_torch_are_integers(value: Any) -> None:
    params = SamplingParams(max_new_tokens=value, seed=value)
    assert params == SamplingParams(max_new_tokens=3, seed=3)
    assert hash(params) == hash(SamplingParams(max_new_tokens=3, seed=3))
    assert json.loads(json.dumps(params.to_dict()))["seed"] == 3
    assert LoadSpec(max_queue=value, max_context=value) == LoadSpec(max_queue=3, max_context=3)
    assert type(LoadSpec(max_queue=value).max_queue) is int
    assert Hole(value) == Hole(3)
    assert check_draws(value) == 3
    request = Request([value, 4], timeout=value)
    assert request == Request((3, 4), timeout=3)
    assert json.dumps(request.to_dict())


@pytest.mark.parametrize("value", [*HALVES, Decimal("0.5")], ids=repr)
def test_fractions_of_numpy_and_torch_are_numbers(value: Any) -> None:
    params = SamplingParams(entropy_bound=value, t_min=value)
    assert params == SamplingParams(entropy_bound=0.5, t_min=0.5)
    assert type(params.t_min) is float
    assert json.dumps(params.to_dict()) == json.dumps(SamplingParams(entropy_bound=0.5, t_min=0.5).to_dict())
    assert Request("x", timeout=value) == Request("x", timeout=0.5)


@pytest.mark.parametrize("value", [np.bool_(False), torch.tensor(False)], ids=repr)
def test_bools_of_numpy_and_torch_are_bools_and_no_integers(value: Any) -> None:
    assert SamplingParams(stop_at_eos=value).stop_at_eos is False
    with pytest.raises(ValueError, match="seed=False: must be an integer"):
        SamplingParams(seed=value)
    with pytest.raises(ValueError, match="t_min=False: must be a positive number"):
        SamplingParams(t_min=value)


@pytest.mark.parametrize(
    "value", [np.float64(3), torch.tensor(3.0), np.array([3, 4]), torch.tensor([3, 4]), np.array("3"), "3", b"3", 3j]
)
def test_other_values_are_no_integers(value: Any) -> None:
    with pytest.raises(ValueError, match="seed="):
        SamplingParams(seed=value)
    with pytest.raises(ValueError, match="max_tokens="):
        Hole(value)


def test_numbers_that_are_out_of_bounds_or_infinite_are_refused() -> None:
    with pytest.raises(ValueError, match="max_queue=0"):
        LoadSpec(max_queue=np.int64(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="t_min=nan"):
        SamplingParams(t_min=np.float32("nan"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout=inf"):
        Request("x", timeout=np.float64("inf"))


def test_other_values_stay_as_they_are() -> None:
    for value in (None, True, 3, 2.5, "3", b"3", 3j, (3,), np.array([1, 2])):
        assert plain(value) is value


def test_a_schema_may_hold_numbers_of_numpy() -> None:
    bounds = {"type": "integer", "minimum": np.int64(3), "maximum": np.int32(3)}
    assert Grammar.json_schema(bounds) == Grammar.json_schema({"type": "integer", "minimum": 3, "maximum": 3})


def test_the_engine_takes_numbers_of_numpy(tiny_engine: Engine) -> None:
    given = SamplingParams(max_new_tokens=np.int64(4), seed=np.int32(1), canvas_length=np.int16(8))  # type: ignore[arg-type]
    handle = tiny_engine.submit("The fox", given)
    assert (
        handle.result(timeout=np.float32(60)).text
        == tiny_engine.submit(  # type: ignore[arg-type]
            "The fox", SamplingParams(max_new_tokens=4, seed=1, canvas_length=8)
        )
        .result()
        .text
    )
