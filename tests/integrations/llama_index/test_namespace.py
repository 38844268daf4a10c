"""The conventional import path, as an installed wheel has it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dgemma_core
from dgemma_integrations import llama_index as home


def test_the_conventional_path_names_the_same_classes() -> None:
    from llama_index.llms import diffusion_gemma

    assert diffusion_gemma.__version__ == dgemma_core.__version__
    for name in set(diffusion_gemma.__all__) - {"__version__"}:
        assert getattr(diffusion_gemma, name) is getattr(home, name)


@pytest.mark.landing
def test_it_brings_no_other_framework() -> None:
    code = (
        "import sys, llama_index.llms.diffusion_gemma as d; "
        "assert not [m for m in sys.modules if m.split('.')[0] in ('langchain', 'langchain_core', 'torch')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_namespace_packages_stay_open(repository: Path) -> None:
    # An __init__.py there would hide llama_index.core and every other integration.
    assert not (repository / "namespace" / "llama_index" / "__init__.py").exists()
    assert not (repository / "namespace" / "llama_index" / "llms" / "__init__.py").exists()


@pytest.mark.landing
def test_the_wheel_holds_all_import_names(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the build backend is not installed here")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=repository, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "llama_index/llms/diffusion_gemma/__init__.py",
        "langchain_diffusiongemma/__init__.py",
        "dgemma_core/embedded/model.safetensors",
        "dgemma_integrations/py.typed",
    ):
        assert wanted in names
