"""Writes what is derived from the settings' one description. ``--check`` writes nothing and fails if a file is stale.

``make generate`` runs it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dgemma_integrations.shared.adapter_settings import LOAD_SETTINGS, SAMPLING_SETTINGS
from scripts.render_fields import fields_source

ROOT = Path(__file__).parents[1]


def generated() -> dict[Path, str]:
    """The text every generated file should have."""
    return {ROOT / "dgemma_integrations/shared/fields.py": fields_source(LOAD_SETTINGS, SAMPLING_SETTINGS)}


def stale() -> dict[Path, str]:
    """The files that differ from what they should be, with the text they should have."""
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
