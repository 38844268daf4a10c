"""Writes a trained checkpoint and its card: `python -m training.ship --run DIR --diffusion A.json --causal B.json`."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

from .evaluate import EMBEDDED

FILES = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
NAMES = {
    "qa": "extractive questions (and refine prompts)",
    "abstain": 'nothing in the context: "The context does not say."',
    "lists": "lists and summaries, the whole list right",
    "tools": "tool calls and final sentences, to the letter",
    "decisions": "yes/no, one of N, relevance, selectors",
    "json": "JSON extraction, all fields right",
}
CARD = """# The embedded checkpoint

A real `DiffusionGemmaForBlockDiffusion`, only small: {parameters:.1f} M parameters in the text model (hidden 192, four
layers sliding/full/sliding/full, four experts of which one is used per token, vocabulary 2,560, canvas 64), {size:.1f}
MB. It exists so that the whole product runs offline on a laptop CPU, with answers that come from the weights.

## What it was trained on

Templated English over invented names and a list of words, made by the seeded generators in `training/data/`: questions
over one to ten facts in the prompt formats that LlamaIndex and LangChain send, questions that the context does not
answer, lists, tool calls in Gemma 4's wire format, decisions, JSON. No text from anywhere else. One name in eight is
held out by its hash; evaluation uses only those.

## How

    python -m training.train --budget {elapsed:.0f} --out training/runs/main --compile

One CPU core, {minutes:.0f} minutes, {steps} steps, {canvases} canvases; the curve is in `training/curve.csv`. The
recipe was changed twice on the way, and the run resumed from its state each time; `training/` holds the last version,
so a run from the start with it is not the same run:

- up to 55 minutes: one noise rate for all positions of a canvas, contexts at full length after a quarter of the time;
- from 55 minutes: half of the canvases noised with a front, more tool calls (`training/loss.py`, `data/mixture.py`);
- from 70 minutes: most canvases hold what the model itself would have settled one denoising step earlier, so that it
  learns to mend its mistakes; more questions without an answer, fewer lists.

The shipped weights are the last ones or their moving average, whichever did better on examples of another seed.

## How good it is

Exact match on held-out names, contexts of up to ten facts, n = {n} per task, the checkpoint's own sampler defaults
(`python -m training.evaluate --n {n}`), next to the same weights run as an ordinary autoregressive model, one token at
a time (`--decoder causal`, n = {causal_n}):

| task | block diffusion | steps per canvas | tokens per step | one by one |
|---|---|---|---|---|
{rows}

On short contexts of up to three facts, or one declared tool (`--level 0 --n 100`): questions 0.88, nothing in the
context 0.72, tool calls 0.53, JSON 0.53, decisions 0.48. Decisions are near guessing: the model has not learned to
compare. One by one is ahead where answers are long or structured; block diffusion was trained too briefly there.

## What it is not

Not a general assistant. It knows no facts, holds no conversation beyond greetings, and answers only in the forms it was
trained on: short sentences that restate a fact of the given context, bullet lists, tool calls, single words, small JSON
objects. Other phrasing, longer or real-world text, other languages and arithmetic are outside of what it learned; there
it writes fluent nonsense, and the table shows how often it is wrong inside of it, too. The vision tower is present so
that the architecture is complete; it is untrained. Quality on this checkpoint says nothing about the large model.
"""


def text_parameters(model: Path) -> float:
    """Parameters of the text model in millions (tied weights once, vision left out)."""
    from safetensors import safe_open

    total = 0
    with safe_open(model, "np") as file:
        for key in file.keys():  # noqa: SIM118
            if "vision" not in key:
                count = 1
                for size in file.get_slice(key).get_shape():
                    count *= size
                total += count
    return total / 1e6


def write_curve(source: Path, target: Path) -> None:
    """Copies the training curve; steps that a resumed run did again count once."""
    with source.open(encoding="utf-8") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(next(iter(rows.values()))), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))


def read_figures(paths: list[Path]) -> dict[str, Any]:
    """Joins figure files of the same settings."""
    parts = [json.loads(p.read_text(encoding="utf-8")) for p in paths]
    assert all(p["settings"] == parts[0]["settings"] for p in parts), "figures of different settings"
    return {"settings": parts[0]["settings"], "tasks": {k: v for p in parts for k, v in p["tasks"].items()}}


def card(run: Path, folder: Path, diffusion: dict[str, Any], causal: dict[str, Any]) -> str:
    """The text of the card."""
    with (run / "curve.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    rows = []
    for task, name in NAMES.items():
        d, c = diffusion["tasks"][task], causal["tasks"][task]
        cells = (
            f"{d['exact_match']:.3f}",
            f"{d['steps_per_canvas']:.1f}",
            f"{d['tokens_per_step']:.2f}",
            f"{c['exact_match']:.3f}",
        )
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return CARD.format(
        parameters=text_parameters(folder / "model.safetensors"),
        size=(folder / "model.safetensors").stat().st_size / 1e6,
        elapsed=float(last["elapsed_s"]),
        minutes=float(last["elapsed_s"]) / 60,
        steps=last["step"],
        canvases=last["canvases"],
        n=diffusion["settings"]["n"],
        causal_n=causal["settings"]["n"],
        rows="\n".join(rows),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--diffusion", type=Path, nargs="+", required=True, help="figures written by the evaluation")
    parser.add_argument("--causal", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(args.run / "checkpoint" / name, args.out / name)
    write_curve(args.run / "curve.csv", Path(__file__).parent / "curve.csv")
    diffusion, causal = read_figures(args.diffusion), read_figures(args.causal)
    (args.out / "README.md").write_text(card(args.run, args.out, diffusion, causal), encoding="utf-8")


if __name__ == "__main__":
    main()
