"""Model presets: the shape of the network that is trained, and the folder of the checkpoint that ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import (
    DiffusionGemmaConfig,
    DiffusionGemmaGenerationConfig,
    DiffusionGemmaTextConfig,
    Gemma4VisionConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

EMBEDDED = Path(__file__).resolve().parent.parent / "core" / "dgemma_core" / "embedded"


@dataclass(frozen=True)
class Preset:
    """Sizes of one model and of its training batches (tokens per step, encoder and canvas together)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    experts: int
    top_k: int
    expert_feed_forward: int
    canvas_length: int
    batch_tokens: int
    vocabulary: int = 3072
    sliding_window: int = 512
    max_positions: int = 4096


PRESETS: dict[str, Preset] = {
    "cpu": Preset(192, 6, 4, 2, 48, 384, 4, 1, 128, 64, 6144),
    "gpu": Preset(320, 6, 5, 1, 64, 768, 4, 1, 256, 64, 65536),
    "tiny": Preset(32, 2, 2, 1, 16, 48, 2, 1, 16, 16, 512),
}


def build_config(preset: Preset, tokenizer: PreTrainedTokenizerFast) -> DiffusionGemmaConfig:
    """The `transformers` config of a preset; token ids come from the tokenizer."""
    token_id = tokenizer.convert_tokens_to_ids
    text = DiffusionGemmaTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=preset.hidden,
        intermediate_size=preset.feed_forward,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.kv_heads,
        num_global_key_value_heads=preset.kv_heads,
        head_dim=preset.head_dim,
        global_head_dim=preset.head_dim,
        layer_types=["full_attention" if index % 2 else "sliding_attention" for index in range(preset.layers)],
        sliding_window=preset.sliding_window,
        num_experts=preset.experts,
        top_k_experts=preset.top_k,
        moe_intermediate_size=preset.expert_feed_forward,
        max_position_embeddings=preset.max_positions,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=token_id("<eos>"),
        bos_token_id=tokenizer.bos_token_id,
    )
    # The vision tower is there so that the architecture is complete; it is never trained.
    vision = Gemma4VisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        position_embedding_size=64,
    )
    return DiffusionGemmaConfig(
        text_config=text,
        vision_config=vision,
        boi_token_id=token_id("<|image>"),
        eoi_token_id=token_id("<image|>"),
        image_token_id=token_id("<|image|>"),
        canvas_length=preset.canvas_length,
    )


def build_generation_config(tokenizer: PreTrainedTokenizerFast) -> DiffusionGemmaGenerationConfig:
    """The sampler defaults that ship with the checkpoint."""
    token_id = tokenizer.convert_tokens_to_ids
    return DiffusionGemmaGenerationConfig(
        max_new_tokens=256,
        max_denoising_steps=48,
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.1),
        t_min=0.4,
        t_max=0.8,
        stability_threshold=1,
        confidence_threshold=0.02,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=token_id(["<eos>", "<turn|>", "<|tool_response>"]),
    )
