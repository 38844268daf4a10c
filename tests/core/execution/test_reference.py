"""transformers' own ``generate`` is recorded step by step and replayed through our step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dgemma_core import Engine, SamplingParams
from dgemma_core.checkpoint.description import describe
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.sampling import entropy_bound_mask
from dgemma_core.execution.backbone import Backbone
from dgemma_core.execution.kv_cache import SequenceCache
from dgemma_core.execution.readout import Readout
from dgemma_core.execution.segments import Segment
from tests.checkpoints import make_model, make_tokenizer
from tests.helpers.recording import SEED, record

CASES: dict[str, dict[str, Any]] = {
    "window shorter than the prompt": {"sliding_window": 8},
    "kv heads differ by layer type": {
        "seed": 1,
        "kv_heads": 4,
        "global_kv_heads": 2,
        "sliding_window": 64,
        "damping": 0.5,
    },
    "three canvases, deeper, top-1": {
        "seed": 5,
        "layers": ("sliding_attention", "sliding_attention", "full_attention", "full_attention"),
        "top_k": 1,
        "damping": 0.3,
        "generation": {"max_new_tokens": 48, "max_denoising_steps": 8, "confidence_threshold": 0.05},
    },
    "sure early": {"seed": 3, "damping": 0.3, "generation": {"confidence_threshold": 0.2, "stability_threshold": 2}},
    "vocabulary 262144": {
        "seed": 4,
        "vocab_size": 262_144,
        "hidden_size": 32,
        "canvas_length": 32,
        # Clear winners: in a flat distribution over so many tokens a draw falls on another one by the last bit.
        "sharpness": 0.8,
        "damping": 0.3,
        "generation": {"max_denoising_steps": 4, "max_new_tokens": 32},
    },
}


def soft_embedding(model: Any, processed_logits: Tensor) -> Tensor:
    """The reference's self-conditioning signal."""
    embedding = model.model.decoder.embed_tokens
    soft: Tensor = torch.matmul(processed_logits.softmax(-1), embedding.weight) * embedding.embed_scale
    return soft


def prompt_of(model: Any) -> list[int]:
    generator = torch.Generator().manual_seed(99)
    return [2, *torch.randint(20, 500, (29,), generator=generator).tolist()]


@pytest.fixture(params=list(CASES), ids=lambda name: name.replace(" ", "-"))
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(**CASES[request.param])


def test_every_step_agrees(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same canvas in: float32 logits within 1e-4, same argmax, same acceptance mask, same stop step."""
    prompt = prompt_of(model)
    recording = record(model, prompt, monkeypatch)
    description = describe(make_tokenizer(), model.config, model.generation_config)
    settings = description.defaults.with_params(SamplingParams(stop_at_eos=False))
    backbone, readout = Backbone(model), Readout(model)
    length = settings.canvas_length
    cache = SequenceCache(backbone.layouts, len(prompt) + 8 * length, backbone.device, backbone.dtype)
    pending, stopped_at, committed = prompt, [], 0
    steps = iter(recording.steps)
    with torch.inference_mode():
        while (recorded := next(steps, None)) is not None:
            generator = torch.Generator().manual_seed(0)
            soft = torch.zeros(length, backbone.hidden_size)
            canvas = Canvas(settings, description.vocab_size, torch.tensor([1, 4]), 10_000, generator)
            done = False
            while not done:
                assert recorded is not None, "our stop step is later than the reference's"
                canvas.tokens = recorded.canvas
                if recorded.conditioned_on is not None:
                    # Replayed like the canvas: a random network multiplies rounding from step to step.
                    soft = soft_embedding(model, recorded.conditioned_on)
                causal = Segment(cache, committed, len(pending), True, committed + len(pending))
                start = committed + len(pending)
                segments = [*([causal] if pending else []), Segment(cache, start, length, False, start + length)]
                embedded = [backbone.embed(torch.tensor(pending))] if pending else []
                hidden = backbone.forward(torch.cat([*embedded, backbone.embed_canvas(canvas.tokens, soft)]), segments)
                committed, pending = start, []
                temperature = torch.full((length,), canvas.temperature)
                torch.testing.assert_close(
                    readout.logits(hidden, temperature), recorded.processed_logits, atol=1e-4, rtol=1e-4
                )
                statistics = readout(hidden, temperature, canvas.uniform)
                assert torch.equal(statistics.argmax, recorded.argmax)
                accepted = entropy_bound_mask(statistics.entropy, settings.entropy_bound)
                assert torch.equal(accepted, recorded.accepted)
                expected = soft_embedding(model, recorded.processed_logits)
                torch.testing.assert_close(statistics.soft, expected, atol=1e-4, rtol=1e-4)
                done = canvas.advance(statistics.argmax, statistics.sample, statistics.entropy)
                assert done == (recorded.stopped or canvas.steps == settings.max_denoising_steps)
                if not done:
                    recorded = next(steps, None)
            stopped_at.append(canvas.steps)
            pending = canvas.argmax.tolist()
    assert sum(stopped_at) == len(recording.steps)


def test_same_draws_give_the_same_tokens(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole engine against ``generate`` with a shared stream of random draws."""
    prompt = prompt_of(model)
    expected = record(model, prompt, monkeypatch).tokens
    end = next((i for i, token in enumerate(expected) if token in (1, 4)), len(expected))
    with Engine.from_model(model, make_tokenizer()) as engine:
        generation = engine.generate([prompt], SamplingParams(seed=SEED, stop_at_eos=False))[0]
    assert list(generation.token_ids) == expected[:end]
    assert generation.finish_reason == ("stop" if end < len(expected) else "length")


def test_cases_cover_what_they_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that never accepts more than one position, or never stops early, would test little."""
    sure = make_model(**CASES["sure early"])
    steps = record(sure, prompt_of(sure), monkeypatch).steps
    assert any(step.stopped for step in steps)
    assert any(int(step.accepted.sum()) > 4 for step in steps)
    long = make_model(**CASES["three canvases, deeper, top-1"])
    assert len(record(long, prompt_of(long), monkeypatch).tokens) == 48
