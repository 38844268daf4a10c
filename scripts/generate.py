"""Writes the fields and tables that are derived from the settings. ``make generate`` runs it.

With ``--check`` it writes nothing and fails if a file is out of date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.api.setting_table import settings_of
from dgemma_integrations.shared.adapter_settings import DRAFTS, load_settings_of, sampling_settings_of
from scripts.render_fields import fields_source
from scripts.render_foreign_names import foreign_names_tables
from scripts.render_tables import settings_table, with_blocks

ROOT = Path(__file__).parents[1]
FIELDS = ROOT / "dgemma_integrations" / "shared" / "fields.py"
PAGES = ROOT / "docs"


def blocks(spec: type = LoadSpec, params: type = SamplingParams) -> dict[str, str]:
    """The texts between ``<!-- generated: NAME -->`` and ``<!-- end -->`` in the docs, by name.

    Args:
        spec: the dataclass of load settings.
        params: the dataclass of sampling parameters.
    """
    sampling = sampling_settings_of(params)
    return {
        "load-settings": settings_table(load_settings_of(spec)),
        "sampling-settings": settings_table({name: one for name, one in sampling.items() if name not in DRAFTS}),
        "sampling-settings-and-drafts": settings_table(sampling),
        "sampling-params": settings_table(settings_of(params)),
        "foreign-names": foreign_names_tables(),
    }


def generated(spec: type = LoadSpec, params: type = SamplingParams) -> dict[Path, str]:
    """The text that every generated file should have. Arguments as for :func:`blocks`."""
    tables = blocks(spec, params)
    pages = {page: with_blocks(page.read_text("utf-8"), tables) for page in sorted(PAGES.glob("*.md"))}
    return {FIELDS: fields_source(load_settings_of(spec), sampling_settings_of(params)), **pages}


def stale() -> dict[Path, str]:
    """The files that are out of date, with the text that they should have."""
    return {path: text for path, text in generated().items() if not path.exists() or path.read_text("utf-8") != text}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    check = parser.parse_args().check
    found = stale()
    for path, text in found.items():
        print(f"{path.relative_to(ROOT)} {'is out of date: run make generate' if check else 'written'}")
        if not check:
            path.write_text(text, "utf-8")
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
