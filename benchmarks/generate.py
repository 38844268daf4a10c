"""The engine against transformers' ``generate``: ``python -m benchmarks.generate``.

Weights, prompts, dtype and sampler settings are the same. ``generate`` runs with the implementation of experts that is
faster on CPUs.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import DiffusionGemmaForBlockDiffusion, PreTrainedTokenizerFast

from benchmarks.common import console, machine, median_seconds, show, wide_model
from dgemma_core import Engine, LoadSpec, SamplingParams
from training.config import EMBEDDED
from training.evaluate import make_cases

REQUESTS = 32
WIDE_STEPS = 4
MAX_NEW_TOKENS = 128


def reference(model: Any, prompts: list[list[int]], **options: Any) -> Any:
    """Run ``generate`` on left-padded prompts."""
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    torch.manual_seed(0)
    return model.generate(input_ids=ids, attention_mask=mask, **options)


def requests(prompts: list[list[int]], model: Any, engine: Engine, runs: int) -> None:
    """Measure one request, and all of them at once."""
    params = SamplingParams(decoding="diffusion", seed=0, max_new_tokens=MAX_NEW_TOKENS)
    options = {"max_new_tokens": MAX_NEW_TOKENS}

    def ours(batch: list[list[int]]) -> Any:
        engine.clear_prefix_cache()
        return engine.generate(batch, params)

    tokens = sum(g.usage.completion_tokens for g in ours(prompts))
    alone_tokens = ours(prompts[:1])[0].usage.completion_tokens
    mine, theirs = median_seconds(runs, lambda: ours(prompts[:1]), lambda: reference(model, prompts[:1], **options))
    columns = ["who", "seconds", "kept tokens/s", "ratio"]
    show(
        "embedded checkpoint, one request",
        columns,
        [
            ("engine", mine, alone_tokens / mine, "1"),
            ("generate", theirs, alone_tokens / theirs, f"{theirs / mine:.1f} x"),
        ],
    )
    mine, one_by_one, padded = median_seconds(
        runs,
        lambda: ours(prompts),
        lambda: [reference(model, [p], **options) for p in prompts],
        lambda: reference(model, prompts, **options),
    )
    show(
        f"embedded checkpoint, {len(prompts)} requests",
        columns,
        [
            ("engine, all at once", mine, tokens / mine, "1"),
            ("generate, one by one", one_by_one, tokens / one_by_one, f"{one_by_one / mine:.1f} x"),
            ("generate, one padded batch", padded, tokens / padded, f"{padded / mine:.1f} x"),
        ],
    )


def wide(tokenizer: Any, runs: int) -> None:
    """Measure the wide random model: vocabulary 262,144, canvas 256, the same number of steps for both."""
    model = wide_model(WIDE_STEPS)
    model.set_experts_implementation("eager")
    prompt = [2, *range(1000, 1063)]
    with Engine.from_model(model, tokenizer, prefix_cache_bytes=0) as engine:
        params = SamplingParams(seed=0, stop_at_eos=False)
        usage = engine.generate([prompt], params)[0].usage
        assert usage.denoising_steps == WIDE_STEPS
        mine, theirs = median_seconds(
            runs, lambda: engine.generate([prompt], params), lambda: reference(model, [prompt])
        )
    show(
        f"random model, vocabulary 262,144, canvas 256, {WIDE_STEPS} steps each",
        ["who", "seconds a step", "ratio"],
        [("engine", mine / WIDE_STEPS, "1"), ("generate", theirs / WIDE_STEPS, f"{theirs / mine:.1f} x")],
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(EMBEDDED), help="checkpoint folder")
    parser.add_argument("--runs", type=int, default=3, help="runs to take the median of; one takes minutes on a CPU")
    parser.add_argument("--skip-wide", action="store_true", help="leave out the wide random model")
    args = parser.parse_args()
    console.print(machine())
    console.print(f"medians of {args.runs} runs after one warm-up, variants in turn, float32")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
    cases = [case for task in ("qa", "lists") for case in make_cases(tokenizer, task, REQUESTS // 2, seed=1)]
    prompts = [case.prompt for case in sorted(cases, key=lambda case: len(case.prompt))]
    model = DiffusionGemmaForBlockDiffusion.from_pretrained(args.model, dtype=torch.float32).eval()
    model.set_experts_implementation("eager")
    with Engine(LoadSpec(model=args.model, device="cpu", dtype="float32")) as engine:
        requests(prompts, model, engine, args.runs)
    if not args.skip_wide:
        wide(tokenizer, min(args.runs, 3))


if __name__ == "__main__":
    main()
