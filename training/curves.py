"""The training curves of the stages that shipped: one compact table, `curves.csv`.

A row is the mean over `STRIDE` steps. Losses are in nats per token. A cell is empty where nothing of its kind was
drawn.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from .data.example import CHAT_TASKS

CURVES = Path(__file__).with_name("curves.csv")
STRIDE = 100
LOSSES = ("causal", "diffusion", *CHAT_TASKS)
COUNTERS = ("step", "elapsed_s", "canvases")

Row = dict[str, Any]


def read_curves(path: Path = CURVES) -> dict[str, list[Row]]:
    """Rows of every stage in training order; a loss that was not measured is None."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stages: dict[str, list[Row]] = {}
    for row in rows:
        counted = {name: float(row[name]) for name in COUNTERS}
        losses = {name: float(row[name]) if row[name] else None for name in LOSSES}
        stages.setdefault(row["stage"], []).append(counted | losses)
    return stages


def add_curve(run: Path, stage: str, path: Path = CURVES) -> None:
    """Add the curve of a run, `curve.csv` as `training.train` writes it, to the table; a stage of that name goes.

    Steps that a resumed run did again count once.
    """
    with run.open(encoding="utf-8") as file:
        by_step = {int(row["step"]): row for row in csv.DictReader(file)}
    stages = read_curves(path) if path.exists() else {}
    stages[stage] = thin([by_step[step] for step in sorted(by_step)])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["stage", *COUNTERS, *LOSSES], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"stage": name, **_text(row)} for name, rows in stages.items() for row in rows)


def thin(rows: Iterable[Row]) -> list[Row]:
    """One row for every `STRIDE` steps: the last counters and the means of the losses."""
    thinned = []
    for _, group in groupby(rows, key=lambda row: (int(row["step"]) - 1) // STRIDE):
        together = list(group)
        means = {name: _mean(float(row.get(name) or 0) for row in together) for name in LOSSES}
        thinned.append({name: float(together[-1][name]) for name in COUNTERS} | means)
    return thinned


def _mean(values: Iterable[float]) -> float | None:
    measured = [value for value in values if value]  # A run logs 0 where nothing of a kind was drawn.
    return sum(measured) / len(measured) if measured else None


def _text(row: Row) -> dict[str, str]:
    counted = {name: f"{row[name]:.0f}" for name in COUNTERS}
    return counted | {name: "" if row[name] is None else f"{row[name]:.3f}" for name in LOSSES}
