"""The programs in the README and in the first guide run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
_PAGES = ("README.md", "docs/getting-started.md")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
ROOT = Path(__file__).resolve().parents[2]


def blocks() -> list[str]:
    """All programs that need no weights from elsewhere."""
    found = [block for page in _PAGES for block in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))]
    return [block for block in found if "google/" not in block]


@pytest.mark.parametrize("program", blocks(), ids=lambda program: program.splitlines()[-1].strip()[:40])
def test_a_program_runs(program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_index.core import Settings

    # The programs set these for the whole process; the other tests must not notice.
    for name in ("_llm", "_tokenizer"):
        monkeypatch.setattr(Settings, name, getattr(Settings, name))
    exec(compile(program, "README", "exec"), {})
    assert "Halur" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [link for link in _LINK.findall(text) if not ((ROOT / page).parent / link).exists()]
    assert not missing
