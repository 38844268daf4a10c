"""The wheel, as users install it: what is inside, and that it works without the checkout."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.landing


@pytest.fixture(scope="module")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what an installed wheel would put on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=repository, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def python(installed: Path, code: str) -> str:
    """What a program prints that finds this project in the wheel only."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=installed, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_module_of_the_packages_is_in_the_wheel(installed: Path, repository: Path) -> None:
    for source in (repository / "core", repository):
        for package in ("dgemma_core", "dgemma_integrations", "langchain_diffusiongemma"):
            for path in (source / package).rglob("*.py"):
                assert (installed / path.relative_to(source)).is_file(), path


def test_the_page_of_a_package_index_has_no_links_into_the_repository(installed: Path) -> None:
    (metadata,) = installed.glob("dgemma-*.dist-info/METADATA")
    page = email.message_from_string(metadata.read_text(encoding="utf-8"))
    text = str(page.get_payload())
    assert page["Description-Content-Type"] == "text/markdown"
    assert text.startswith("# dgemma\n")
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
    assert "from dgemma_integrations.langchain import ChatDiffusionGemma" in text


def test_the_embedded_checkpoint_answers(installed: Path) -> None:
    code = (
        "import dgemma_core\n"
        "from dgemma_core import Engine, LoadSpec, SamplingParams\n"
        "with Engine(LoadSpec()) as engine:\n"
        "    answer = engine.generate(['The Halur bridge'], SamplingParams(max_new_tokens=4, seed=0))[0]\n"
        "print(dgemma_core.__file__, answer.usage.denoising_steps > 0)\n"
    )
    assert python(installed, code) == f"{installed / 'dgemma_core' / '__init__.py'} True"


def test_the_adapter_imports_without_pytest(installed: Path) -> None:
    code = "import sys; sys.modules['pytest'] = None; import dgemma_integrations.llama_index"
    assert python(installed, code) == ""


def test_the_conformance_suite_can_be_inherited(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_my_llm.py").write_text(
        "from llama_index.core.llms import MockLLM\n"
        "from dgemma_integrations.llama_index.conformance import LLMConformance\n\n\n"
        "class TestMyLLM(LLMConformance):\n"
        "    llm_class = MockLLM\n"
    )
    options = [
        "-q",
        "-W",
        "ignore",
        "-p",
        "no:cacheprovider",
        "-k",
        "test_class or test_endpoint_answers",
        str(tmp_path),
    ]
    assert "9 passed" in python(installed, f"import pytest; raise SystemExit(pytest.main({options!r}))")
