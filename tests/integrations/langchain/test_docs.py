"""The guides run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("page", "blocks", "words"),
    [
        ("langchain", 9, ["1931", "green", "get_weight", "team="]),
        ("agents-langchain", 6, ["get_weight", "weight=512", "1931"]),
    ],
)
def test_every_example_of_a_guide_runs(
    page: str, blocks: int, words: list[str], repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (repository / "docs" / f"{page}.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(examples) >= blocks
    names: dict[str, Any] = {"__name__": "guide"}
    for example in examples:
        exec(compile(example, f"docs/{page}.md", "exec", dont_inherit=True), names)
    printed = capsys.readouterr().out
    for word in words:
        assert word in printed
