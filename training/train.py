"""Trains the embedded checkpoint: `python -m training.train --budget SECONDS --out DIR [--resume]`.

Several processes (`torchrun --nproc-per-node N -m training.train ...`) share every update: each takes its own batches
and the gradients are averaged. On a CPU this is faster than several threads in one process.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import DiffusionGemmaForBlockDiffusion, PreTrainedTokenizerFast

from .config import PRESETS, Preset, build_config, build_generation_config
from .data.example import TASKS
from .feed import Feed, WorkerFeed
from .loss import WATCHED, compute_losses
from .optimizer import build_optimizers, fast_dtype
from .tokenizer import train_tokenizer
from .walk import PAD, Walk

WARMUP_STEPS = 60
FAINT = 0.1  # factor on the outputs of additional layers
FLOOR = 0.03  # share of the peak learning rate that is left at the end
EMA_DECAY = 0.998
LOG_EVERY = 25
SAVE_EVERY_S = 240.0
LR_MATRIX, LR_REST = 0.02, 2e-3
RANK, PROCESSES = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def average_over_processes(tensors: list[Tensor]) -> None:
    """Replaces tensors by their means over all processes, in one exchange."""
    flat = torch.nn.utils.parameters_to_vector(tensors)
    dist.all_reduce(flat)
    torch.nn.utils.vector_to_parameters(flat / PROCESSES, tensors)


def learning_rate(step: int, progress: float) -> float:
    """Factor on the peak rates: warm-up by steps, cosine by the share of the budget."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / WARMUP_STEPS) * (FLOOR + (1 - FLOOR) * cosine)


def build_model(preset: Preset, tokenizer: PreTrainedTokenizerFast, seed: int) -> DiffusionGemmaForBlockDiffusion:
    """A freshly initialised model."""
    torch.manual_seed(seed)
    model = DiffusionGemmaForBlockDiffusion(build_config(preset, tokenizer))
    model.generation_config = build_generation_config(tokenizer)
    # By default the padding row is zero, where the gradient of a norm is infinite.
    nn.init.normal_(model.model.decoder.embed_tokens.weight[PAD].detach(), std=0.02)
    for layer in model.model.decoder.layers:
        # Attention is not scaled by 1/sqrt(d), so small query norms keep the first attention maps soft.
        nn.init.constant_(layer.self_attn.q_norm.weight, 0.5)
    return model


def take_weights(model: DiffusionGemmaForBlockDiffusion, tokenizer: PreTrainedTokenizerFast, source: Path) -> None:
    """Copies a checkpoint's weights into a model that may be deeper and have another tokenizer.

    Tokens that both tokenizers have keep their embeddings. Additional layers come in the middle. They begin as copies
    of the source's last layers with faint outputs, so that the model still does what the source did (a damped form of
    depthwise stacking, https://arxiv.org/abs/2405.15319).
    """
    small = DiffusionGemmaForBlockDiffusion.from_pretrained(source, dtype=torch.float32)
    weights = small.state_dict()
    ids = PreTrainedTokenizerFast.from_pretrained(source).get_vocab()
    shared = {new: ids[token] for token, new in tokenizer.get_vocab().items() if token in ids}
    count, wanted = small.config.text_config.num_hidden_layers, model.config.text_config.num_hidden_layers
    begin, added = count // 4 * 2, wanted - count
    if added % 2:
        raise ValueError(f"{wanted} layers cannot grow from {count}: kinds of layers alternate, so add an even number")
    fresh = model.state_dict()
    for name, tensor in fresh.items():
        head, _, tail = name.partition(".layers.")
        if "vision" in head or not tail:
            if tensor.shape == weights[name].shape and not name.endswith(("embed_tokens.weight", "lm_head.weight")):
                fresh[name] = weights[name]
            else:
                tensor[list(shared)] = weights[name][list(shared.values())]
            continue
        index, _, rest = tail.partition(".")
        layer = int(index)
        new = begin <= layer < begin + added
        origin = count - added + layer - begin if new else layer if layer < begin else layer - added
        copied = weights[f"{head}.layers.{origin}.{rest}"]
        damped = new and rest in ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")
        fresh[name] = FAINT * copied if damped else copied
    model.load_state_dict(fresh)


class Trainer:
    """Model, optimisers, moving average and clock of one run, all of which can be saved and restored."""

    def __init__(
        self,
        run: Path,
        preset: Preset,
        device: str,
        seed: int,
        compiled: bool = False,
        init: Path | None = None,
        peak: float = 1.0,
        new_tokenizer: bool = False,
    ) -> None:
        self.run, self.preset, self.seed, self.peak = run, preset, seed, peak
        run.mkdir(parents=True, exist_ok=True)
        saved = run / "tokenizer"
        if RANK == 0 and not saved.exists():
            same = init is not None and not new_tokenizer
            fresh = PreTrainedTokenizerFast.from_pretrained(init) if same else train_tokenizer(preset.vocabulary)
            fresh.save_pretrained(saved)
        if PROCESSES > 1:
            dist.barrier()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(saved)
        self.model = build_model(preset, self.tokenizer, seed).to(device)
        if init is not None:
            take_weights(self.model, self.tokenizer, init)
        self.walk = Walk(self.model, fast_dtype(self.model.device), compiled)
        self.optimizers = build_optimizers(self.model, LR_MATRIX, LR_REST)
        self.parameters = [p for p in self.model.model.decoder.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.generator = torch.Generator().manual_seed(seed * PROCESSES + RANK)
        self.step, self.elapsed, self.examples, self.pool = 0, 0.0, 0, 0
        self.window: dict[str, Any] = {}
        self._clear_window()

    def _clear_window(self) -> None:
        self.window = {
            "causal": 0.0,
            "diffusion": 0.0,
            "steps": 0,
            "with_canvases": 0,
            "tokens": 0,
            "sum": 0,
            "count": 0,
            "watched": dict.fromkeys(WATCHED, (0.0, 0)),
            "since": time.time(),
        }

    def train_step(self, batch: Any, progress: float) -> None:
        """One update."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * self.peak * learning_rate(self.step, progress)
        losses = compute_losses(self.walk, batch.to(self.model.device), self.generator)
        losses.total.backward()
        if PROCESSES > 1:
            for p in self.parameters:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
            average_over_processes([p.grad for p in self.parameters if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        self.step += 1
        self.examples += int((batch.canvas_branch[:, :: batch.canvas_length] >= 0).sum())
        w = self.window
        w["causal"] += losses.causal
        w["diffusion"] += losses.diffusion
        w["steps"] += 1
        w["with_canvases"] += int(batch.canvas.numel() > 0)
        w["tokens"] += batch.tokens.numel() + batch.canvas.numel()
        w["sum"] = w["sum"] + losses.task_sum
        w["count"] = w["count"] + losses.task_count
        for name, (total, count) in losses.watched.items():
            w["watched"][name] = w["watched"][name][0] + total, w["watched"][name][1] + count

    def report(self) -> dict[str, float]:
        """Means since the last report."""
        w = self.window
        row = {
            "step": self.step,
            "elapsed_s": round(self.elapsed, 1),
            "canvases": self.examples,
            "causal": round(w["causal"] / w["steps"], 4),
            "diffusion": round(w["diffusion"] / max(1, w["with_canvases"]), 4),
            "tokens_per_s": round(w["tokens"] / (time.time() - w["since"])),
        }
        for index, task in enumerate(TASKS):
            row[task] = round(float(w["sum"][index] / w["count"][index].clamp(min=1)), 4)
        for name, (total, count) in w["watched"].items():
            row[name] = round(total / max(1, count), 4)
        self._clear_window()
        return row

    def averaged(self) -> dict[str, Tensor]:
        """Puts the moving average into the model and returns the weights that it replaced."""
        held = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for p, a in zip(self.parameters, self.average, strict=True):
                p.copy_(a)
        return {"held": torch.nn.utils.parameters_to_vector(held)}

    def export(self, folder: Path) -> None:
        """Writes the averaged model, its tokenizer and its configs."""
        held = self.averaged()["held"]
        temporary = folder.with_name(folder.name + ".new")
        shutil.rmtree(temporary, ignore_errors=True)
        self.model.save_pretrained(temporary)
        self.tokenizer.save_pretrained(temporary)
        torch.nn.utils.vector_to_parameters(held, self.parameters)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)

    def save(self) -> None:
        """Writes all that a resumed run needs."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "average": self.average,
            "generator": self.generator.get_state(),
            "numbers": (self.step, self.elapsed, self.examples, self.pool),
        }
        torch.save(state, self.run / "state.new")
        (self.run / "state.new").rename(self.run / "state.pt")

    def restore(self) -> None:
        """Continues from the saved state."""
        state = torch.load(self.run / "state.pt", map_location=self.model.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average = [a.clone() for a in state["average"]]
        self.generator.set_state(state["generator"].cpu())
        self.step, self.elapsed, self.examples, self.pool = state["numbers"]
        if PROCESSES > 1:  # Only one state was saved, and every process needs its own draws.
            self.generator.manual_seed((self.seed + self.step) * PROCESSES + RANK)


def write_row(path: Path, row: dict[str, float]) -> None:
    """Appends one line to the training curve."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, required=True, help="training time in seconds")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--publish", type=Path, help="also copy every exported checkpoint here")
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="start from this checkpoint's weights and tokenizer")
    parser.add_argument("--new-tokenizer", action="store_true", help="with --init: train a new tokenizer, too")
    parser.add_argument("--peak", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--level", type=float, default=0.0, help="place in the curriculum to begin at, 0 to 1")
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--batch-tokens", type=int, help="tokens per step and process (default: the preset's)")
    parser.add_argument("--data-core", type=int, help="CPU core of the data worker")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    preset = PRESETS[args.preset or ("gpu" if device == "cuda" else "cpu")]
    preset = replace(preset, batch_tokens=args.batch_tokens or preset.batch_tokens)
    if PROCESSES > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    trainer = Trainer(args.out, preset, device, args.seed, args.compile, args.init, args.peak, args.new_tokenizer)
    if args.resume and (args.out / "state.pt").exists():
        trainer.restore()
        trainer.pool += 1
    size = sum(p.numel() for p in trainer.parameters) / 1e6
    print(f"{size:.2f} M parameters, vocabulary {len(trainer.tokenizer)}, {trainer.walk.dtype}", flush=True)
    trees = max(64, preset.batch_tokens // 128)
    seed = f"{args.seed}.{RANK}" if RANK else str(args.seed)
    feed = Feed(trainer.tokenizer, args.out, seed, trainer.pool, preset.batch_tokens, trees, args.level)
    feed.progress = trainer.elapsed / args.budget
    stream = WorkerFeed(feed, args.data_core)
    began, base, saved_at = time.time(), trainer.elapsed, time.time()
    for pool, batch in stream:
        trainer.elapsed = base + time.time() - began
        if PROCESSES > 1:  # One clock for all, so that they stop after the same update.
            clock = torch.tensor([trainer.elapsed], dtype=torch.float64, device=device)
            average_over_processes([clock])
            trainer.elapsed = float(clock)
        progress = trainer.elapsed / args.budget
        if progress >= 1 or (args.steps and trainer.step >= args.steps):
            break
        stream.progress = progress
        trainer.pool = pool
        trainer.train_step(batch, progress)
        if RANK == 0 and trainer.step % LOG_EVERY == 0:
            row = trainer.report()
            write_row(args.out / "curve.csv", row)
            print(row, flush=True)
        if RANK == 0 and time.time() - saved_at > SAVE_EVERY_S:
            checkpoint(trainer, args.out, args.publish)
            saved_at = time.time()
    if RANK == 0:
        checkpoint(trainer, args.out, args.publish)
    print(f"done after {trainer.step} steps, {trainer.elapsed:.0f} s", flush=True)


def checkpoint(trainer: Trainer, run: Path, publish: Path | None) -> None:
    """Saves the state and exports the model."""
    trainer.save()
    trainer.export(run / "checkpoint")
    if publish:
        temporary = publish.with_name(publish.name + ".new")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(run / "checkpoint", temporary)
        shutil.rmtree(publish, ignore_errors=True)
        temporary.rename(publish)


if __name__ == "__main__":
    main()
