"""The curves of the stages, their picture and the card say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training import plot
from training.config import EMBEDDED
from training.curves import add_curve, read_curves
from training.ship import STAGES, stage_row


def test_the_picture_is_drawn_from_the_table() -> None:
    assert plot.PICTURE.read_text(encoding="utf-8") == plot.draw(read_curves())


def test_the_card_tells_every_stage() -> None:
    card = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    notes = json.loads(STAGES.read_text(encoding="utf-8"))
    curves = read_curves()
    assert list(notes["stages"]) == list(curves)
    for name, stage in notes["stages"].items():
        assert stage_row(name, curves[name][-1], stage["what"]) in card
    assert notes["remarks"] in card


def test_a_run_is_added_as_means_over_a_hundred_steps(tmp_path: Path) -> None:
    run, table = tmp_path / "curve.csv", tmp_path / "curves.csv"
    lines = ["step,elapsed_s,canvases,causal,diffusion,tokens_per_s,qa,read"]
    lines += [f"{step},{step / 10},{2 * step},{step / 100},0.0,9,{0.5 if step == 50 else 0.0},1" for step in (25, 50)]
    lines += ["50,5.5,101,0.75,0.0,9,0.5,1", "125,12.5,250,2.0,1.0,9,0.0,1"]  # a resumed run did step 50 again
    run.write_text("\n".join(lines) + "\n", encoding="utf-8")
    add_curve(run, "1-first", table)
    add_curve(run, "2-second", table)
    add_curve(run, "1-first", table)
    stages = read_curves(table)
    assert list(stages) == ["1-first", "2-second"]
    first, last = stages["1-first"]
    assert (first["step"], first["canvases"]) == (50, 101)
    assert first["causal"] == pytest.approx(0.5)
    assert (first["qa"], first["diffusion"], first["lists"]) == (0.5, None, None)
    assert (last["step"], last["diffusion"]) == (125, 1.0)
