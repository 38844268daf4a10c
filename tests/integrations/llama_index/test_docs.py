"""The guide is complete."""

from __future__ import annotations

from pathlib import Path

from dgemma_integrations.llama_index import DiffusionGemma


def test_the_guide_names_every_parameter(repository: Path) -> None:
    guide = (repository / "docs" / "llama_index.md").read_text()
    own = set(DiffusionGemma.model_fields) - set(DiffusionGemma.__mro__[1].model_fields)  # type: ignore[attr-defined]
    assert {name for name in own if f"`{name}`" not in guide} == set()
