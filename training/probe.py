"""How well one denoising step mends the first wrong token of a canvas: `python -m training.probe --model FOLDER`.

The tokens before it are right. The tokens after it are wrong in the same places in both measurements: random ones in
the first, right ones that stand one or two positions off in the second.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import torch
from transformers import DiffusionGemmaForBlockDiffusion, PreTrainedTokenizerFast

from .config import EMBEDDED
from .data.example import CHAT_TASKS
from .data.mixture import DEFAULT_MIX
from .loss import count_before, slips
from .tree import draw_batches
from .walk import Walk, canvas_mask


@torch.no_grad()
def probe(model: Path, task: str, batches: int, seed: int) -> dict[str, list[bool]]:
    """Whether the first wrong token of each canvas is predicted rightly, for each kind of wrong tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    walk = Walk(DiffusionGemmaForBlockDiffusion.from_pretrained(model, dtype=torch.float32), torch.float32)
    temperature = (walk.model.generation_config.t_min + walk.model.generation_config.t_max) / 2
    mix = dict.fromkeys(DEFAULT_MIX, 0.0) | {task: 1.0}
    generator = torch.Generator().manual_seed(seed)
    right: dict[str, list[bool]] = {"noise": [], "slip": []}
    for batch in islice(draw_batches(tokenizer, f"probe-{seed}", mix, 1.0, 2048, 4 * batches), batches):
        target = batch.canvas.view(-1, batch.canvas_length)
        slipped = target.gather(1, slips(target, generator))
        wrong = slipped != target
        random_tokens = torch.randint(0, walk.text.vocab_size, target.shape, generator=generator)
        first = wrong & (count_before(wrong, batch.canvas_length) == 0) & (batch.canvas_branch.view(target.shape) >= 0)
        _, cache = walk.encode(batch)
        masks = walk.attention_masks(canvas_mask, batch)
        for kind, canvas in (("noise", torch.where(wrong, random_tokens, target)), ("slip", slipped)):
            hidden = walk.denoise(batch, canvas.view(batch.canvas.shape), cache, None, masks)
            _, guess, _ = walk.propose(hidden, torch.full((batch.canvas.numel(), 1), temperature))
            right[kind] += (guess.view(target.shape) == target)[first].tolist()
    return right


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--task", choices=CHAT_TASKS, default="tools")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for kind, right in probe(args.model, args.task, args.batches, args.seed).items():
        print(f"{args.task}, {kind} after it: {sum(right) / len(right):.3f} of {len(right)} first wrong tokens mended")


if __name__ == "__main__":
    main()
