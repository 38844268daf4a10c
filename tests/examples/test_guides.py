"""The guides run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["structured-output", "tools", "decisions", "infilling", "images"])
def test_every_example_of_a_guide_runs(
    page: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = _BLOCK.findall((repository / "docs" / f"{page}.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)  # Some write files.
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, f"docs/{page}.md", "exec"), names)
    assert capsys.readouterr().out.strip()
