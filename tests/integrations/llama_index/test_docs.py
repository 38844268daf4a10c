"""The guide is complete."""

from __future__ import annotations

from pathlib import Path

from llama_index.core.llms.function_calling import FunctionCallingLLM

from dgemma_integrations.llama_index import DiffusionGemma


def test_the_guide_names_every_parameter(repository: Path) -> None:
    guide = (repository / "docs" / "llama_index.md").read_text()
    own = {
        f.alias or name
        for name, f in DiffusionGemma.model_fields.items()
        if name not in FunctionCallingLLM.model_fields
    }
    assert {name for name in own if f"`{name}`" not in guide} == set()
