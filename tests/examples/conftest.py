"""LlamaIndex's global settings, which programs set, are put back after each test and each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.page_outputs import kept_settings


@pytest.fixture(autouse=True, scope="module")
def _settings_of_the_module() -> Iterator[None]:
    with kept_settings():
        yield


@pytest.fixture(autouse=True)
def _settings_of_the_test() -> Iterator[None]:
    with kept_settings():
        yield
