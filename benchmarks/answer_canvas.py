"""The answer-aware canvas against the reference rule: ``python -m benchmarks.answer_canvas``.

The first table is for held-out prompts of the embedded checkpoint. It shows exact matches, how often a rule gives the
reference rule's answer, steps, computed positions and time. A second seed of the reference rule shows how much answers
vary anyway.

The second table is for a random model with vocabulary 262,144 and canvas 256. Its answer is made to end at position 15.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from benchmarks.common import console, machine, median_seconds, show, wide_model
from dgemma_core import Engine, Generation, LoadSpec, SamplingParams
from training.config import EMBEDDED
from training.data.example import CHAT_TASKS
from training.evaluate import is_right, make_cases, strip_end

END = 1
END_AT = 15
WIDE_STEPS = 8


def ending_model() -> Any:
    """The wide random model, with an end token at position ``END_AT`` if a canvas runs alone.

    The last layer's output outweighs all other layers'. At that position it points along the end token's embedding,
    and at all others against it.
    """
    model = wide_model(WIDE_STEPS)
    decoder = model.model.decoder
    width = decoder.embed_tokens.weight.shape[1]
    direction = torch.nn.functional.normalize(torch.randn(width), dim=0)
    last = decoder.layers[-1]
    with torch.no_grad():
        decoder.embed_tokens.weight[END] = 3 * direction
        last.post_feedforward_layernorm_2.weight.zero_()
        last.post_feedforward_layernorm.weight.fill_(100.0)

    def point(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        output[:] = -direction
        output[..., END_AT, :] = direction
        return output

    last.mlp.down_proj.register_forward_hook(point)
    return model


def run(engine: Engine, prompts: list[list[int]], **params: Any) -> tuple[list[Generation], float]:
    """Answer all prompts together, without reused prefixes. Returns the answers and the seconds they took."""
    engine.clear_prefix_cache()
    began = time.perf_counter()
    generations = engine.generate(prompts, SamplingParams(decoding="diffusion", **params))
    return generations, time.perf_counter() - began


def embedded(model: str, count: int) -> None:
    """Measure held-out prompts of the embedded checkpoint."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    share = -(-count // len(CHAT_TASKS))
    cases = [(task, case) for task in CHAT_TASKS for case in make_cases(tokenizer, task, share, seed=2)][:count]
    prompts = [case.prompt for _, case in cases]
    with Engine(LoadSpec(model=model)) as engine:
        run(engine, prompts[:32], seed=0)
        variants = {
            "answer-aware": run(engine, prompts, seed=0),
            "reference rule": run(engine, prompts, seed=0, stop_at_eos=False),
            "reference rule, another seed": run(engine, prompts, seed=1, stop_at_eos=False),
        }
    base = variants["reference rule"][0]
    rows = []
    for name, (generations, seconds) in variants.items():
        texts = [strip_end(tokenizer.decode(list(g.token_ids), skip_special_tokens=False)) for g in generations]
        right = sum(is_right(task, case.target, text) for (task, case), text in zip(cases, texts, strict=True))
        same = sum(a.token_ids == b.token_ids for a, b in zip(generations, base, strict=True))
        steps = sum(g.usage.denoising_steps for g in generations) / sum(g.usage.canvases for g in generations)
        positions = sum(g.usage.positions for g in generations)
        rows.append((name, f"{right / count:.3f}", f"{same / count:.3f}", steps, positions, seconds))
    columns = ["rule", "exact match", "same as reference", "steps per canvas", "positions", "seconds"]
    show(f"embedded checkpoint, {count} held-out prompts", columns, rows)


def wide(model: str, runs: int) -> None:
    """Measure the wide random model: canvas 256, an answer of 15 tokens."""
    prompt = [2, *range(1000, 1063)]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    with Engine.from_model(ending_model(), tokenizer, prefix_cache_bytes=0) as engine:
        params = [SamplingParams(decoding="diffusion", seed=0, stop_at_eos=flag) for flag in (True, False)]
        usages = [engine.generate([prompt], p)[0].usage for p in params]
        assert usages[0].completion_tokens == END_AT
        seconds = median_seconds(
            runs, lambda: engine.generate([prompt], params[0]), lambda: engine.generate([prompt], params[1])
        )
    rows = [
        (name, usage.denoising_steps, usage.positions, time_, f"{seconds[1] / time_:.1f} x")
        for name, usage, time_ in zip(("answer-aware", "reference rule"), usages, seconds, strict=True)
    ]
    show(
        f"random model, vocabulary 262,144, canvas 256, answer ends at position {END_AT}",
        ["rule", "steps", "positions", "seconds", "faster"],
        rows,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(EMBEDDED), help="checkpoint folder")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    console.print(machine())
    embedded(args.model, args.count)
    wide(args.model, args.runs)


if __name__ == "__main__":
    main()
