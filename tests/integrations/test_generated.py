"""Committed files that are derived from the settings are up to date."""

from __future__ import annotations

from scripts.generate import stale


def test_generated_files_are_up_to_date() -> None:
    assert not stale(), f"run make generate: {[path.name for path in stale()]}"
