"""Verified and typed text is that of a plain loop over transformers' modules, also with unusual models and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dgemma_core import BlockEvent, Engine, Grammar, LoadSpec, Message, SamplingParams
from dgemma_core.errors import ContextOverflowError
from tests.checkpoints import make_model, make_tokenizer, save_checkpoint
from tests.helpers.image_prompts import CONVERSATION, MESSAGES, PICTURES, reference_inputs, with_small_images
from tests.helpers.plain_loop import typed

BOTH = pytest.mark.parametrize("decoding", ["verified", "typewriter"])
# Random weights whose greedy text varies, with repetitions that are drafted.
VARIED: dict[str, Any] = {"seed": 1, "sharpness": 0.1, "damping": 2.0}
PROMPT = [2, *[40, 41, 42, 43, 44] * 5]


def params(decoding: Any = "verified", **settings: Any) -> SamplingParams:
    return SamplingParams(decoding=decoding, **{"seed": 3, "max_new_tokens": 30, **settings})


@BOTH
@pytest.mark.parametrize("window", [2, 5, 17])
def test_windows_shorter_than_a_draft(decoding: str, window: int) -> None:
    model = make_model(**VARIED, sliding_window=window, never_ends=True)
    expected = typed(model, PROMPT, 30)
    with Engine.from_model(model, make_tokenizer()) as engine:
        assert list(engine.generate([PROMPT], params(decoding))[0].token_ids) == expected


def untied_model() -> Any:
    """The encoder has weights of its own everywhere."""
    model = make_model(**VARIED, never_ends=True)
    encoder, generator = model.model.encoder.language_model, torch.Generator().manual_seed(1)
    for module in encoder.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            noise = 1 + 0.3 * torch.randn(parameter.shape, generator=generator)
            setattr(module, name, torch.nn.Parameter(parameter.detach() * noise, requires_grad=False))
    return model


@BOTH
def test_an_encoder_with_weights_of_its_own(decoding: str) -> None:
    model = untied_model()
    prompts = [PROMPT, PROMPT[:7], [2, *range(60, 90)]]
    expected = [typed(model, prompt, 30) for prompt in prompts]
    with Engine.from_model(model, make_tokenizer()) as engine:
        others = [engine.submit(prompt, params("diffusion")) for prompt in prompts]
        found = engine.generate(prompts, params(decoding))
        assert [list(generation.token_ids) for generation in found] == expected
        denoised = [handle.result().token_ids for handle in others]
        assert [engine.generate([prompt], params("diffusion"))[0].token_ids for prompt in prompts] == denoised


@BOTH
@pytest.mark.parametrize("budget", [4096, 100, 40])
@pytest.mark.parametrize("attention", [None, "vision"])
def test_prompts_with_images(decoding: str, budget: int, attention: str | None, tmp_path: Path) -> None:
    options = VARIED | {"image_attention": attention}
    model = make_model(**options)
    inputs = reference_inputs(CONVERSATION, PICTURES)
    prompt = inputs.pop("input_ids")[0].tolist()
    expected = typed(model, prompt, 12, **inputs)
    assert expected != typed(model, prompt, 12, **inputs | {"pixel_values": inputs["pixel_values"].flip(0)})
    folder = with_small_images(save_checkpoint(tmp_path, **options))
    with Engine(LoadSpec(model=folder, max_batch_tokens=budget)) as engine:
        alone = engine.generate([MESSAGES], params(decoding, max_new_tokens=12))[0]
        others = engine.generate([MESSAGES, [*MESSAGES, Message("user", "fox")]], params(decoding, max_new_tokens=12))
    assert list(alone.token_ids) == list(others[0].token_ids) == expected


@BOTH
@pytest.mark.parametrize("prompt", [[2], [2, 2], PROMPT])
def test_the_window_may_be_filled_to_its_end(decoding: str, prompt: list[int]) -> None:
    model = make_model(**VARIED, never_ends=True)
    window = 64
    expected = typed(model, prompt, window - len(prompt))
    with Engine.from_model(model, make_tokenizer(), max_context=window) as engine:
        full = engine.generate([prompt], params(decoding, max_new_tokens=window - len(prompt)))[0]
        with pytest.raises(ContextOverflowError):
            engine.submit(prompt, params(decoding, max_new_tokens=window - len(prompt) + 1))
    assert list(full.token_ids) == expected
    assert full.finish_reason == "length"


@pytest.mark.parametrize("words", [4, 9, 40])
def test_long_forced_text_up_to_the_last_token(words: int) -> None:
    """Drafts and the canvas stand after the text in memory, however much text is encoded with them."""
    forced = " the quick brown fox jumps" * words
    grammar = Grammar.regex(f"[a-z]{{4}}{forced}[a-z]{{3}}{forced}")
    with Engine.from_model(make_model(damping=0.5, never_ends=True), make_tokenizer()) as engine:
        whole = engine.generate([forced * 2], params("typewriter", grammar=grammar, max_new_tokens=900))[0]
        for room in range(len(whole.token_ids), len(whole.token_ids) + 16):
            typed_one, verified = (
                engine.generate([forced * 2], params(decoding, grammar=grammar, max_new_tokens=room))[0]
                for decoding in ("typewriter", "verified")
            )
            assert typed_one.token_ids == verified.token_ids
            assert verified.text.endswith(forced)


def test_raw_tokens_may_call_tools(embedded_engine: Engine) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    prompt = embedded_engine._admission.render([Message("user", "What is the weather in Zonel?")], [tool]).ids
    typed_one, verified = (
        embedded_engine.generate([prompt], params(decoding, max_new_tokens=60))[0]
        for decoding in ("typewriter", "verified")
    )
    assert (verified.token_ids, verified.finish_reason) == (typed_one.token_ids, "tool_calls")
    # Without a grammar the arguments are the model's own.
    assert [call.name for call in verified.tool_calls] == ["get_weather"]


def test_chats_without_tools_never_call(embedded_engine: Engine) -> None:
    """However hot: tokens of calls are never drawn."""
    calls = set(embedded_engine._admission.parts.template.call_tokens)
    chat = [Message("user", "What is the weather in Zonel?")]
    typed_one, verified = (
        embedded_engine.generate([chat], params(decoding, temperature=20.0, max_new_tokens=150))[0]
        for decoding in ("typewriter", "verified")
    )
    assert verified.token_ids == typed_one.token_ids
    assert not calls & set(verified.token_ids)


@BOTH
def test_thinking_is_apart_from_the_text(embedded_engine: Engine, decoding: str) -> None:
    handle = embedded_engine.submit([Message("user", "What is 2 + 2?")], params(decoding), thinking=True)
    blocks = [event for event in handle if isinstance(event, BlockEvent)]
    generation = handle.result()
    assert "".join(block.reasoning for block in blocks) == generation.reasoning
    assert "".join(block.text for block in blocks) == generation.text
    assert "<|channel>" not in generation.text
