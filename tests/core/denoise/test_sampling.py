"""The pure functions against transformers' classes and against plain definitions."""

from __future__ import annotations

import pytest
import torch
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
    LinearTemperatureScheduleLogitsProcessor,
)

from dgemma_core import SamplingParams
from dgemma_core.denoise.sampling import entropy_bound_mask, first_end, inverse_cdf_sample, temperature


@pytest.mark.parametrize("bound", [0.01, 0.5, 3.0, 100.0])
def test_acceptance_is_the_references(bound: float) -> None:
    logits = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0)) * 4
    sampler = EntropyBoundSampler(EntropyBoundSamplerConfig(bound), 20, 50, 48)
    canvas = torch.zeros(3, 20, dtype=torch.long)
    sampler.accept_canvas(canvas, canvas, logits, 1)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.equal(entropy_bound_mask(entropy, bound), sampler.accepted_token_mask)


def test_at_least_one_position_is_accepted() -> None:
    assert entropy_bound_mask(torch.tensor([5.0, 4.0, 9.0]), 0.1).tolist() == [False, True, False]


def test_temperature_is_the_references() -> None:
    processor = LinearTemperatureScheduleLogitsProcessor(0.4, 0.8, 48)
    for step in range(48):
        scaled = processor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), cur_step=48 - step)
        assert float(1 / scaled) == pytest.approx(temperature(step, 48, 0.4, 0.8))


@pytest.mark.parametrize("vocab", [7, 64, 1000, 2048])
def test_inverse_cdf_draws_the_distribution(vocab: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(1, vocab, generator=generator)
    draws = inverse_cdf_sample(weights.expand(40_000, -1).contiguous(), torch.rand(40_000, generator=generator))
    observed = torch.bincount(draws, minlength=vocab) / len(draws)
    expected = weights[0] / weights.sum()
    assert (observed - expected).abs().sum() < 0.25
    assert torch.allclose(observed[:3], expected[:3], atol=0.02)


def test_inverse_cdf_never_draws_what_cannot_be() -> None:
    weights = torch.zeros(1000, 128)
    weights[:, [3, 100]] = 1.0
    draws = inverse_cdf_sample(weights, torch.linspace(0, 0.999999, 1000))
    assert set(draws.tolist()) == {3, 100}


def test_first_end() -> None:
    ends = torch.tensor([1, 4])
    assert first_end(torch.tensor([7, 4, 1]), ends) == 1
    assert first_end(torch.tensor([7, 8, 9]), ends) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0), ("max_new_tokens", -3), ("max_new_tokens", 2.5), ("max_new_tokens", True), ("seed", -1),
        ("stop", 5), ("seed", 2**64), ("t_min", 0),
        ("stop", ["ok", ""]), ("stop", ""), ("max_denoising_steps", 0), ("entropy_bound", 0), ("entropy_bound", "high"),
        ("entropy_bound", float("nan")), ("t_min", -0.1), ("stability_threshold", -1), ("confidence_threshold", 0.0),
        ("canvas_length", 0), ("drafts", 1),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SamplingParams(**{field: value})  # type: ignore[arg-type]


def test_crossed_temperatures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"t_max=0\.2 is below t_min=0\.9"):
        SamplingParams(t_min=0.9, t_max=0.2)


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="typical_p"):
        SamplingParams(typical_p=0.9)  # type: ignore[call-arg]
