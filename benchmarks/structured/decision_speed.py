"""Decisions per second, by ``decide`` and by generating an answer to each question."""

from __future__ import annotations

import asyncio

import torch
from transformers import DiffusionGemmaForBlockDiffusion

from benchmarks.common import checkpoint_folder, console, median_seconds
from benchmarks.generate import reference
from dgemma_core import Engine, Message, Question, SamplingParams


def compare_speed(engine: Engine, sample: list[tuple[str, dict[str, Question]]], runs: int) -> None:
    """Print decisions per second, over contexts that are all asked at once and are not in the prefix cache.

    Three ways are compared: ``decide``, the engine's ``generate`` with one prompt per question, and transformers'
    ``generate``. The last one is slow, so it gets only the first context's questions, in one padded batch.
    """
    singly = [_single(text, q) for text, questions in sample for q in questions.values()]
    few = singly[: len(sample[0][1])]
    turns = [[{"role": m.role, "content": m.text} for m in prompt] for prompt in few]
    ids = [engine.tokenizer.apply_chat_template(t, add_generation_prompt=True)["input_ids"] for t in turns]
    folder = checkpoint_folder(engine.spec.model)
    model = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.float32).eval()
    model.set_experts_implementation("eager")  # The fastest on a CPU.

    async def all_at_once() -> None:
        await asyncio.gather(*(engine.adecide(text, questions) for text, questions in sample))

    def decide() -> None:
        engine.clear_prefix_cache()
        asyncio.run(all_at_once())

    def generate() -> None:
        engine.clear_prefix_cache()
        engine.generate(singly, SamplingParams(seed=0))

    def upstream() -> None:
        reference(model, ids, max_new_tokens=engine.canvas_length)

    seconds = median_seconds(runs, decide, generate, upstream)
    counts = (len(singly), len(singly), len(few))
    by_decide, by_engine, by_upstream = (n / s for n, s in zip(counts, seconds, strict=True))
    console.print(
        f"{len(singly)} questions over {len(sample)} contexts at once, decisions per second, medians of {runs}: "
        f"{by_decide:.1f} by decide, {by_engine:.1f} by the engine's generate ({by_decide / by_engine:.1f} x), "
        f"{by_upstream:.1f} by transformers' ({by_decide / by_upstream:.1f} x), asked about the first context only"
    )


def _single(text: str, question: Question) -> list[Message]:
    options = "yes or no" if question.type == "bool" else ", ".join(question.names)
    return [Message("user", f"{text}\n\n{question.text} Answer with one of: {options}.")]
