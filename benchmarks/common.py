"""Helpers of the measurements: timing, the machine's description, random models, a table."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, DiffusionGemmaTextConfig
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    DiffusionGemmaGenerationConfig,
    EntropyBoundSamplerConfig,
)
from transformers.models.gemma4 import Gemma4VisionConfig

from dgemma_core import Engine
from training.config import EMBEDDED

console = Console(width=120)


def median_seconds(runs: int, *variants: Callable[[], object]) -> list[float]:
    """Median seconds of each variant. They run in turn, so that drift hits all, after one round of warm-up."""
    times: list[list[float]] = [[] for _ in variants]
    for round_number in range(runs + 1):
        for index, variant in enumerate(variants):
            began = time.perf_counter()
            variant()
            if round_number:
                times[index].append(time.perf_counter() - began)
    return [statistics.median(t) for t in times]


def machine() -> str:
    """One line about where this ran."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads{gpu}, torch {torch.__version__}"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table)


def checkpoint_folder(model: str) -> str:
    """The folder or Hub id of an engine's ``model``, for transformers."""
    return str(EMBEDDED) if model == "embedded" else model


def random_engine(engine: Engine) -> Engine:
    """An engine with the architecture and tokenizer of another engine's checkpoint, and random weights."""
    torch.manual_seed(0)
    config = DiffusionGemmaConfig.from_pretrained(checkpoint_folder(engine.spec.model))
    model = DiffusionGemmaForBlockDiffusion(config)
    torch.nn.init.normal_(model.model.decoder.embed_tokens.weight.detach(), std=0.3)
    return Engine.from_model(model, engine.tokenizer)


def wide_model(steps: int, vocab_size: int = 262_144, canvas_length: int = 256) -> Any:
    """A random model with the real vocabulary and canvas. It never converges, so a canvas takes all ``steps`` steps."""
    torch.manual_seed(0)
    text = DiffusionGemmaTextConfig(  # type: ignore[call-arg]  # It takes every name of its file.
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        global_head_dim=32,
        layer_types=["sliding_attention", "full_attention"],
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=64,
        max_position_embeddings=4096,
    )
    vision = Gemma4VisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        position_embedding_size=64,
    )
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=canvas_length)
    model = DiffusionGemmaForBlockDiffusion(config).eval()
    model.generation_config = DiffusionGemmaGenerationConfig(
        max_new_tokens=canvas_length,
        max_denoising_steps=steps,
        sampler_config=EntropyBoundSamplerConfig(0.1),
        t_min=0.4,
        t_max=0.8,
        stability_threshold=1,
        confidence_threshold=0.005,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=2,
    )
    return model
