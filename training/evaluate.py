"""Exact match per task on held-out names: `python -m training.evaluate --model FOLDER --n 500 [--out FILE.json]`.

Answers come from the project's own engine, by default from block diffusion. With `--decoder causal` they come from the
same weights run as an ordinary autoregressive model over transformers' modules, for comparison.
"""

from __future__ import annotations

import argparse
import atexit
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from transformers import DiffusionGemmaForBlockDiffusion, DynamicCache, PreTrainedTokenizerFast

from dgemma_core.api.sampling_params import Decoding

from .config import EMBEDDED
from .data.example import CHAT_TASKS, Branch
from .data.mixture import draw_example, source_for
from .tree import TOOL_END, TURN_END, render

END_TEXT = (TURN_END, TOOL_END, "<eos>", "<pad>")


@dataclass(frozen=True)
class Reply:
    """What a decoder wrote, with control tokens but without the end token, and the work it took."""

    text: str
    tokens: int
    canvases: int
    steps: int


@dataclass(frozen=True)
class Case:
    """One held-out example: prompt ids, the right text, the branch it came from."""

    prompt: list[int]
    target: str
    branch: Branch


Decoder = Callable[[list[list[int]]], list[Reply]]


def make_cases(tokenizer: PreTrainedTokenizerFast, task: str, count: int, seed: int, level: float = 1.0) -> list[Case]:
    """`count` examples of a task over names that training never saw, with short contexts at level 0, full ones at 1."""
    source = source_for(f"evaluate-{task}-{seed}", held_out=True)
    cases = []
    while len(cases) < count:
        branch = draw_example(source, task, level)
        prompt, target = render(tokenizer, branch)
        ids = tokenizer(prompt, add_special_tokens=False).input_ids
        cases.append(Case(ids, strip_end(target), branch))
    return cases


def strip_end(text: str) -> str:
    """Text before the first end token."""
    for end in END_TEXT:
        text = text.split(end, 1)[0]
    return text.strip()


def is_right(task: str, expected: str, got: str) -> bool:
    """Whether two answers match exactly; JSON is compared as values, whatever their blanks and order of fields."""
    if task != "json":
        return expected == got
    try:
        return bool(json.loads(expected) == json.loads(got))
    except json.JSONDecodeError:
        return False


def engine_decoder(model: Path, seed: int, canvas_length: int | None, decoding: Decoding = "diffusion") -> Decoder:
    """A way of decoding of `dgemma_core.Engine`."""
    from dgemma_core import Engine, LoadSpec, SamplingParams

    engine = Engine(LoadSpec(model=str(model)))
    atexit.register(engine.close)
    params = SamplingParams(seed=seed, canvas_length=canvas_length, decoding=decoding)

    def decode(prompts: list[list[int]]) -> list[Reply]:
        replies = []
        for out in engine.generate(prompts, params):
            text = engine.tokenizer.decode(list(out.token_ids), skip_special_tokens=False)
            usage = out.usage
            replies.append(Reply(strip_end(text), usage.completion_tokens, usage.canvases, usage.denoising_steps))
        return replies

    return decode


def causal_decoder(model: Path, limit: int = 256) -> Decoder:
    """Greedy decoding, one token per forward pass, through the model's encoder."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    network = DiffusionGemmaForBlockDiffusion.from_pretrained(model, dtype=torch.float32).eval()
    network.set_experts_implementation("eager")
    ends = set(tokenizer.convert_tokens_to_ids(list(END_TEXT)))

    @torch.no_grad()
    def one(prompt: list[int]) -> Reply:
        cache = DynamicCache(config=network.config.text_config)
        tokens: list[int] = []
        ids = torch.tensor([prompt])
        while len(tokens) < limit:
            hidden = network.model.encoder(input_ids=ids, past_key_values=cache).last_hidden_state[:, -1]
            token = int(network.lm_head(hidden).argmax())
            if token in ends:
                break
            tokens.append(token)
            ids = torch.tensor([[token]])
        text = tokenizer.decode(tokens, skip_special_tokens=False)
        return Reply(strip_end(text), len(tokens), 0, len(tokens) + 1)

    return lambda prompts: [one(p) for p in prompts]


def evaluate(
    decode: Decoder,
    tokenizer: PreTrainedTokenizerFast,
    tasks: list[str],
    count: int,
    seed: int,
    show: int = 0,
    level: float = 1.0,
) -> dict[str, dict[str, float]]:
    """One row of figures per task."""
    table: dict[str, dict[str, float]] = {}
    for task in tasks:
        cases = make_cases(tokenizer, task, count, seed, level)
        began = time.perf_counter()
        replies = decode([c.prompt for c in cases])
        seconds = time.perf_counter() - began
        right = [is_right(task, c.target, r.text) for c, r in zip(cases, replies, strict=True)]
        canvases = sum(r.canvases for r in replies)
        table[task] = {
            "exact_match": sum(right) / count,
            "tokens": sum(r.tokens for r in replies) / count,
            "steps_per_canvas": sum(r.steps for r in replies) / canvases if canvases else 0.0,
            "tokens_per_step": sum(r.tokens for r in replies) / sum(r.steps for r in replies),
            "seconds": round(seconds, 2),
        }
        print(task, {k: round(v, 3) for k, v in table[task].items()}, flush=True)
        wrong = [(c, r) for c, r, ok in zip(cases, replies, right, strict=True) if not ok]
        for case, reply in wrong[:show]:
            question = str(case.branch.messages[-1]["content"])[-160:]
            print(f"   ...{question!r}\n   right {case.target!r}\n   got   {reply.text!r}", flush=True)
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--tasks", nargs="+", choices=CHAT_TASKS, default=list(CHAT_TASKS))
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--level", type=float, default=1.0, help="0: up to 3 facts, one tool; 1: 10 facts, 4 tools")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decoder", choices=(*get_args(Decoding), "causal"), default="diffusion")
    parser.add_argument("--canvas-length", type=int)
    parser.add_argument("--show", type=int, default=0, help="wrong answers to print per task")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
    if args.decoder == "causal":
        decode = causal_decoder(args.model)
    else:
        decode = engine_decoder(args.model, args.seed, args.canvas_length, args.decoder)
    table = evaluate(decode, tokenizer, args.tasks, args.n, args.seed, args.show, args.level)
    if args.out:
        settings = {"n": args.n, "seed": args.seed, "decoder": args.decoder}
        args.out.write_text(json.dumps({"settings": settings, "tasks": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
