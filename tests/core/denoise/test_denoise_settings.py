"""A request's settings filled in from the checkpoint's."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from dgemma_core import SamplingParams
from dgemma_core.denoise.denoise_settings import DenoiseSettings

DEFAULTS = DenoiseSettings(64, 48, 0.1, 0.4, 0.8, 1, 0.005, True)


def test_what_is_not_given_is_the_checkpoints() -> None:
    assert DEFAULTS.with_params(SamplingParams()) == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("canvas_length", 16),
        ("max_denoising_steps", 3),
        ("entropy_bound", 2.0),
        ("t_min", 0.1),
        ("t_max", 1.5),
        ("stability_threshold", 0),
        ("confidence_threshold", 0.5),
        ("stop_at_eos", False),
    ],
)
def test_what_is_given_is_taken(name: str, value: Any) -> None:
    settings = DEFAULTS.with_params(SamplingParams(**{name: value}))
    assert asdict(settings) == asdict(DEFAULTS) | {name: value}


@pytest.mark.parametrize(
    ("temperature", "t_max", "t_min"), [(0, 0.8, 0.4), (0.3, 0.8, 0.4), (0.8, 0.8, 0.4), (1.2, 1.2, 0.6)]
)
def test_a_high_temperature_heats_the_schedule(temperature: float, t_max: float, t_min: float) -> None:
    settings = DEFAULTS.with_params(SamplingParams(temperature=temperature))
    assert (settings.t_max, settings.t_min) == (t_max, t_min)


def test_every_setting_can_be_given() -> None:
    assert set(asdict(DEFAULTS)) <= SamplingParams.names()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"canvas_length": 65}, "canvas_length=65: .* at most 64"),
        ({"t_max": 0.3}, r"t_max=0\.3 is below t_min=0\.4"),
        ({"t_min": 0.9}, r"t_max=0\.8 is below t_min=0\.9"),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DEFAULTS.with_params(SamplingParams(**given))


def test_a_checkpoints_zero_temperature_is_named() -> None:
    cold = replace(DEFAULTS, t_min=0.0)
    with pytest.raises(ValueError, match=r"t_min=0\.0, the checkpoint's default"):
        cold.with_params(SamplingParams())
    assert cold.with_params(SamplingParams(t_min=0.2)).t_min == 0.2
