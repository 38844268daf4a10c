"""The guide's examples run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import llama_index.core
import pytest
from llama_index.core import Settings
from llama_index.core.llms.function_calling import FunctionCallingLLM

from dgemma_integrations.llama_index import DiffusionGemma


@pytest.fixture
def settings() -> Iterator[None]:
    tokenizer = llama_index.core.global_tokenizer
    yield
    llama_index.core.global_tokenizer = tokenizer
    Settings._llm = None


@pytest.mark.usefixtures("settings")
def test_the_examples_of_the_guide(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (repository / "docs" / "llama_index.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(examples) >= 8
    exec(compile("\n".join(examples), "docs/llama_index.md", "exec"), {"__name__": "guide"})
    printed = capsys.readouterr().out
    assert printed.splitlines()[1] == "The Mirdo museum is closed on Monday."
    assert "tokens in a window of" in printed


def test_the_guide_names_every_parameter(repository: Path) -> None:
    guide = (repository / "docs" / "llama_index.md").read_text()
    own = {
        f.alias or name
        for name, f in DiffusionGemma.model_fields.items()
        if name not in FunctionCallingLLM.model_fields
    }
    assert {name for name in own if f"`{name}`" not in guide} == set()
