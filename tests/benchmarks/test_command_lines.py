"""The measurements run: each part on a few examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import answer_canvas, common
from benchmarks.structured.__main__ import main
from training.evaluate import EMBEDDED

pytestmark = pytest.mark.landing


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    kinds: list[dict[str, Any]] = [
        {"type": "object", "properties": {"year": {"type": "integer", "maximum": 9}}, "required": ["year"]},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        {"type": "object", "patternProperties": {"^a": {"type": "string"}}},
    ]
    file = tmp_path / "schemas.jsonl"
    file.write_text("\n".join(json.dumps({"id": f"some/{i}", "schema": kind}) for i, kind in enumerate(kinds)))
    return file


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("schemas", ("Answers to JSON schemas", "random weights", "100.0%")),
        ("json", ("JSON extraction", "fields right")),
        ("decisions", ("Typed decisions", "decisions per second")),
        ("infill", ("infill, both sides", "completion, left side")),
        ("tools", ("Forced tool calls", "random weights", "100.0%")),
        ("auto", ("Held-out tool task", "tool_choice=auto")),
    ],
)
def test_a_part_of_structured_prints_its_table(
    part: str, words: tuple[str, ...], schemas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--n", "8", "--compare", "1", "--runs", "1", "--budget", "24", "--steps", "4", "--schemas", str(schemas)]
    main([part, *options])
    printed = capsys.readouterr().out
    assert [word for word in words if word not in printed] == []


def test_the_answer_canvas_stops_where_the_answer_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_canvas, "wide_model", lambda steps: common.wide_model(steps, 20_000, 64))
    answer_canvas.wide(str(EMBEDDED), runs=1)
    assert "answer-aware" in capsys.readouterr().out
