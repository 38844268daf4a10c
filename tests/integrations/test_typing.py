"""Type checkers know the models' keyword arguments."""

from __future__ import annotations

from pathlib import Path

import mypy.api
import pytest

SNIPPET = """
from dgemma_integrations.langchain import ChatDiffusionGemma
from dgemma_integrations.llama_index import DiffusionGemma

DiffusionGemma(temperature=1)
ChatDiffusionGemma(temperature=1)
DiffusionGemma(tempature=1)
ChatDiffusionGemma(tempature=1)
"""


@pytest.mark.slow
def test_a_misspelt_setting_is_a_type_error(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(repository)  # Paths in its configuration are relative.
    module = tmp_path / "snippet.py"
    module.write_text(SNIPPET, "utf-8")
    printed, complaints, _ = mypy.api.run([str(module)])
    assert not complaints
    errors = [line for line in printed.splitlines() if ": error:" in line]
    assert [line.split(":")[1] for line in errors] == ["7", "8"], printed
    for line, name in zip(errors, ("DiffusionGemma", "ChatDiffusionGemma"), strict=True):
        assert f'Unexpected keyword argument "tempature" for "{name}"; did you mean "temperature"?' in line
