"""Puts a finished run into the package: the checkpoint, its card and its training curve.

`python -m training.ship --run DIR --stage 15-name --diffusion A.json --causal B.json`; `stages.json` must have an
entry for the stage. The figures come from `python -m training.evaluate --out FILE.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from . import plot
from .config import EMBEDDED
from .curves import Row, add_curve, read_curves

STAGES = Path(__file__).with_name("stages.json")  # what the card says of each stage, and how it was run
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

A small `DiffusionGemmaForBlockDiffusion` with {parameters:.1f} M parameters in the text model, {size:.1f} MB in all.
It has {layers} layers of width {hidden} (sliding and full attention in turn), {experts} experts of which each token
uses one, a vocabulary of {vocabulary:,} tokens and a canvas of {canvas}. It is there so that everything runs offline
on a laptop's CPU with answers that come from the weights.

## What it was trained on

Templated English over invented names and common words, made by the seeded generators in `training/data/`: questions
over one to ten facts in the prompt formats that LlamaIndex and LangChain send, questions that the context does not
answer, lists, tool calls in Gemma 4's wire format, decisions, JSON, blanks in text, and conversations of many short
turns of all these. No text comes from anywhere else. One name in eight is held out (a hash of the name decides), and
evaluation uses only those. 545 common words are one token each; eight words in a hundred come from a list of 7,000
others.

## How

On CPU cores, in stages. A stage begins with the weights of the one before unless the table says otherwise.
`training/curves.svg` shows the losses.

| stage | minutes | steps | canvases per process | what |
|---|---|---|---|---|
{stages}

`training/stages.json` has the options of each stage. The recipe changed from stage to stage, so a run from nothing
with the present recipe is not the same run.

## How good it is

The figures are exact matches on held-out names, with contexts of up to ten facts, n = {n} per task and the
checkpoint's own sampler defaults (`python -m training.evaluate --n {n}`). The last column is the same weights run as
an ordinary autoregressive model, one token at a time (`--decoder causal`, n = {causal_n}).

| task | block diffusion | steps per canvas | tokens per step | one by one |
|---|---|---|---|---|
{rows}

{remarks}
## What it is not

It is not a general assistant. It knows no facts and holds no conversation beyond greetings. It answers only in the
forms it was trained on: short sentences that restate a fact of the given context, bullet lists, tool calls, single
words, small JSON objects. It did not learn other phrasing, longer or real-world text, other languages or arithmetic,
and writes fluent nonsense there; the table shows how often it is wrong on what it did learn. The vision tower
completes the architecture but is untrained. Quality on this checkpoint says nothing about the large model.
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


def stage_row(name: str, last: Row, what: str) -> str:
    """One row of the card's table of stages, from the last row of its curve. Canvases are those of one process."""
    return f"| {name} | {last['elapsed_s'] / 60:.0f} | {last['step']:.0f} | {last['canvases']:.0f} | {what} |"


def read_figures(paths: list[Path]) -> dict[str, Any]:
    """Joins files of figures that were measured with the same settings."""
    parts = [json.loads(p.read_text(encoding="utf-8")) for p in paths]
    assert all(p["settings"] == parts[0]["settings"] for p in parts), "figures of different settings"
    return {"settings": parts[0]["settings"], "tasks": {k: v for p in parts for k, v in p["tasks"].items()}}


def card(folder: Path, notes: dict[str, Any], diffusion: dict[str, Any], causal: dict[str, Any]) -> str:
    """The text of the card; `notes` is what `stages.json` holds."""
    curves = read_curves()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config["text_config"]
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
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        experts=text["num_experts"],
        vocabulary=text["vocab_size"],
        canvas=config["canvas_length"],
        stages="\n".join(stage_row(name, curves[name][-1], stage["what"]) for name, stage in notes["stages"].items()),
        n=diffusion["settings"]["n"],
        causal_n=causal["settings"]["n"],
        rows="\n".join(rows),
        remarks=notes["remarks"],
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--stage", required=True, help="name of the run in training/stages.json, such as 3-deep")
    parser.add_argument("--diffusion", type=Path, nargs="+", required=True, help="figures written by the evaluation")
    parser.add_argument("--causal", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    args = parser.parse_args()
    notes = json.loads(STAGES.read_text(encoding="utf-8"))
    if args.stage not in notes["stages"]:
        parser.error(f"--stage {args.stage}: training/stages.json has no entry for it; say there what the stage is")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        # Replaced in one move: a process that has mapped the old weights into its memory keeps them.
        new = args.out / f"{name}.new"
        shutil.copyfile(args.run / "checkpoint" / name, new)
        new.replace(args.out / name)
    add_curve(args.run / "curve.csv", args.stage)
    plot.PICTURE.write_text(plot.draw(read_curves()), encoding="utf-8")
    diffusion, causal = read_figures(args.diffusion), read_figures(args.causal)
    (args.out / "README.md").write_text(card(args.out, notes, diffusion, causal), encoding="utf-8")


if __name__ == "__main__":
    main()
