from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


def test_every_example_of_the_guide_runs(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (repository / "docs" / "langchain.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/langchain.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "1931" in printed
    assert "1978" in printed
