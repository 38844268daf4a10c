"""Writes a trained checkpoint and its card.

`python -m training.ship --run DIR --curve 3-deep --diffusion A.json --causal B.json`
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

from .evaluate import EMBEDDED

CURVES = Path(__file__).parent / "curves"  # with `stages.json`, what the card says about each
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

A real `DiffusionGemmaForBlockDiffusion`, only small: {parameters:.1f} M parameters in the text model (hidden {hidden},
{layers} layers, sliding and full by turns, {experts} experts of which one is used per token, vocabulary {vocabulary:,},
canvas {canvas}), {size:.1f} MB. It exists so that the whole product runs offline on a laptop CPU, with answers that
come from the weights.

## What it was trained on

Templated English over invented names and common words, made by the seeded generators in `training/data/`: questions
over one to ten facts in the prompt formats that LlamaIndex and LangChain send, questions that the context does not
answer, lists, tool calls in Gemma 4's wire format, decisions, JSON, blanks in text, and conversations of many short
turns of all these. No text from anywhere else. One name in eight is held out by its hash; evaluation uses only those.
Of the words, 545 are common ones and each a token; eight in a hundred come from a list of 7,000 others.

## How

On CPU cores, in stages that begin with the weights of the one before unless the table says otherwise; the curves are in
`training/curves/`:

| stage | minutes | steps | canvases per process | what |
|---|---|---|---|---|
{stages}

`training/README.md` has the commands. The recipe changed from stage to stage, so a run from nothing with the present
one is not the same run.

## How good it is

Exact match on held-out names, contexts of up to ten facts, n = {n} per task, the checkpoint's own sampler defaults
(`python -m training.evaluate --n {n}`), next to the same weights run as an ordinary autoregressive model, one token at
a time (`--decoder causal`, n = {causal_n}):

| task | block diffusion | steps per canvas | tokens per step | one by one |
|---|---|---|---|---|
{rows}

{remarks}
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
    """Copies a training curve; steps that a resumed run did again count once."""
    with source.open(encoding="utf-8") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(next(iter(rows.values()))), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))


def stage_row(curve: Path, what: str) -> str:
    """One row of the card's table of stages, from a curve such as `2-dialogues.csv`. Canvases are one process's."""
    with curve.open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    return f"| {curve.stem} | {float(last['elapsed_s']) / 60:.0f} | {last['step']} | {last['canvases']} | {what} |"


def read_figures(paths: list[Path]) -> dict[str, Any]:
    """Joins figure files of the same settings."""
    parts = [json.loads(p.read_text(encoding="utf-8")) for p in paths]
    assert all(p["settings"] == parts[0]["settings"] for p in parts), "figures of different settings"
    return {"settings": parts[0]["settings"], "tasks": {k: v for p in parts for k, v in p["tasks"].items()}}


def card(folder: Path, notes: dict[str, str], diffusion: dict[str, Any], causal: dict[str, Any]) -> str:
    """The text of the card. `notes` says what each stage was, by the name of its curve, and `remarks`."""
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
        stages="\n".join(stage_row(CURVES / f"{name}.csv", what) for name, what in notes.items() if name != "remarks"),
        n=diffusion["settings"]["n"],
        causal_n=causal["settings"]["n"],
        rows="\n".join(rows),
        remarks=notes["remarks"],
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--curve", required=True, help="name of the run's curve in training/curves, such as 3-deep")
    parser.add_argument("--diffusion", type=Path, nargs="+", required=True, help="figures written by the evaluation")
    parser.add_argument("--causal", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        # In one move: a process that has the old weights mapped into its memory keeps them.
        new = args.out / f"{name}.new"
        shutil.copyfile(args.run / "checkpoint" / name, new)
        new.replace(args.out / name)
    write_curve(args.run / "curve.csv", CURVES / f"{args.curve}.csv")
    diffusion, causal = read_figures(args.diffusion), read_figures(args.causal)
    notes = json.loads((CURVES / "stages.json").read_text(encoding="utf-8"))
    (args.out / "README.md").write_text(card(args.out, notes, diffusion, causal), encoding="utf-8")


if __name__ == "__main__":
    main()
