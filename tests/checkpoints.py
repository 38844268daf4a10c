"""Tiny random checkpoints of the real architecture, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
    Gemma4VisionConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    DiffusionGemmaGenerationConfig,
    EntropyBoundSamplerConfig,
)

CONTROL_TOKENS = [
    "<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "<|tool>", "<tool|>",
    "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|image>", "<image|>",
    "<|image|>",
]  # fmt: skip
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}"
    "{{ part.text if part.type == 'text' else '<|image|>' }}{% endfor %}{% endif %}"
    "<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)
TEXT = "The quick brown fox jumps over the lazy dog. user model system context question answer 0123456789 été 你好"


def make_tokenizer(vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Gemma 4's control tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=CONTROL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<turn|>",
        pad_token="<pad>",
        additional_special_tokens=CONTROL_TOKENS[3:],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(
    *,
    seed: int = 0,
    vocab_size: int = 512,
    hidden_size: int = 64,
    layers: tuple[str, ...] = ("sliding_attention", "full_attention"),
    sliding_window: int = 24,
    kv_heads: int = 2,
    global_kv_heads: int = 1,
    head_dim: int = 16,
    global_head_dim: int = 32,
    canvas_length: int = 16,
    top_k: int = 2,
    sharpness: float = 0.4,
    damping: float = 1.0,
    generation: dict[str, Any] | None = None,
    never_ends: bool = False,
    image_attention: str | None = None,
    patch_size: int = 16,
    varied_scales: bool = False,
) -> DiffusionGemmaForBlockDiffusion:
    """A random model.

    ``sharpness`` is the embedding's standard deviation: above 0.3 the logits have clear winners. ``damping`` scales
    what each layer adds: at 1 the network is chaotic, well below 1 a canvas tends to confirm itself and converges. With
    ``never_ends`` no end token is ever the likeliest one. ``image_attention="vision"`` lets the tokens of an image see
    each other, and ``patch_size`` are the pixels of an image patch's side. With ``varied_scales`` the weights of norms
    and routers and the layers' scalars differ from 1, so that a computation that leaves one out is found.
    """
    torch.manual_seed(seed)
    text = DiffusionGemmaTextConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        num_global_key_value_heads=global_kv_heads,
        head_dim=head_dim,
        global_head_dim=global_head_dim,
        layer_types=list(layers),
        sliding_window=sliding_window,
        num_experts=4,
        top_k_experts=top_k,
        moe_intermediate_size=hidden_size,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        use_bidirectional_attention=image_attention,
    )
    vision = Gemma4VisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        position_embedding_size=64,
        patch_size=patch_size,
    )
    model = DiffusionGemmaForBlockDiffusion(
        DiffusionGemmaConfig(
            text_config=text,
            vision_config=vision,
            canvas_length=canvas_length,
            boi_token_id=CONTROL_TOKENS.index("<|image>"),
            eoi_token_id=CONTROL_TOKENS.index("<image|>"),
            image_token_id=CONTROL_TOKENS.index("<|image|>"),
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "vision" not in name:
                parameter.normal_(0.0, sharpness if "embed_tokens" in name else hidden_size**-0.5)
        _fill_vision(model, seed, sharpness * hidden_size**0.5)
        for layer in model.model.decoder.layers:
            layer.post_attention_layernorm.weight.fill_(damping)
            layer.post_feedforward_layernorm.weight.fill_(damping)
        if never_ends:
            model.model.decoder.embed_tokens.weight[[1, 4]] = 0.0
        # Not tied, so the two modes differ: the walk has to keep them apart.
        for index, layer in enumerate(model.model.encoder.language_model.layers):
            layer.layer_scalar.fill_(0.9 - 0.1 * index)
        if varied_scales:
            _vary_scales(model, seed)
    options: dict[str, Any] = {
        "max_new_tokens": 2 * canvas_length,
        "max_denoising_steps": 12,
        "sampler_config": EntropyBoundSamplerConfig(0.1),
        "t_min": 0.4,
        "t_max": 0.8,
        "stability_threshold": 1,
        "confidence_threshold": 0.005,
        "eos_token_id": [1, 4],
        "pad_token_id": 0,
        "bos_token_id": 2,
    }
    model.generation_config = DiffusionGemmaGenerationConfig(**(options | (generation or {})))
    return model


def _fill_vision(model: DiffusionGemmaForBlockDiffusion, seed: int, loudness: float) -> None:
    """Random weights with which other pictures give clearly other embeddings, as loud as those of text."""
    generator = torch.Generator().manual_seed(seed)
    encoder = model.model.encoder
    for parameter in (*encoder.vision_tower.parameters(), *encoder.embed_vision.parameters()):
        if parameter.ndim > 1:
            parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
    encoder.embed_vision.embedding_projection.weight.mul_(loudness)


def _vary_scales(model: DiffusionGemmaForBlockDiffusion, seed: int) -> None:
    """Multiply what is a vector of ones, or a scalar, by numbers between 0.7 and 1.3."""
    generator = torch.Generator().manual_seed(seed)
    decoder = model.model.decoder
    for parameter in decoder.parameters():
        if parameter.ndim == 1:
            parameter.mul_(0.7 + 0.6 * torch.rand(parameter.shape, generator=generator))
    for layer in decoder.layers:
        layer.layer_scalar.mul_(0.7 + 0.6 * torch.rand(1, generator=generator))


def save_checkpoint(folder: Path, **options: Any) -> Path:
    """Write a random checkpoint with its tokenizer to ``folder``."""
    make_model(**options).save_pretrained(folder)
    make_tokenizer(options.get("vocab_size", 512)).save_pretrained(folder)
    return folder
