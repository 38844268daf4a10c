"""The package under LangChain's naming."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import dgemma_core
import dgemma_integrations.langchain as home
import langchain_diffusiongemma


def test_the_same_classes_under_another_name() -> None:
    assert langchain_diffusiongemma.__all__ == [
        "ChatDiffusionGemma",
        "DiffusionGemmaClassifier",
        "DiffusionGemmaLLM",
        "__version__",
    ]
    for name in langchain_diffusiongemma.__all__[:-1]:
        assert getattr(langchain_diffusiongemma, name) is getattr(home, name)
    assert langchain_diffusiongemma.__version__ == dgemma_core.__version__


def test_it_is_packaged_with_its_types(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    assert "langchain_diffusiongemma" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "/langchain_diffusiongemma" in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert "langchain_diffusiongemma" in project["tool"]["mypy"]["files"]
    assert (repository / "langchain_diffusiongemma" / "py.typed").is_file()


def test_importing_it_loads_nothing_heavy(repository: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = {[str(repository / 'core'), str(repository)]!r}\n"
        "from langchain_diffusiongemma import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM\n"
        "found = [m for m in ('torch', 'transformers', 'llama_index', 'langchain', 'langgraph') if m in sys.modules]\n"
        "sys.exit(f'loaded: {found}' if found else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
