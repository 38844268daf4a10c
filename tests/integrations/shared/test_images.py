"""Downloads of images that messages name by address."""

from __future__ import annotations

import pytest

from dgemma_core.api.images import MAX_IMAGE_BYTES
from dgemma_core.errors import DGemmaError
from dgemma_integrations.shared import images as module
from dgemma_integrations.shared.images import fetch_image, fetcher


def test_nothing_is_fetched_unless_allowed() -> None:
    assert fetcher(False) is None
    assert fetcher(True) is fetch_image


@pytest.mark.parametrize("path", ["ok.png", "moved.png"])
def test_a_picture_arrives(site: str, png: bytes, path: str) -> None:
    assert fetch_image(f"{site}/{path}") == png


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.png", "could not be downloaded.*404"),
        ("loop.png", "could not be downloaded.*redirect"),
        ("huge.png", f"more than {MAX_IMAGE_BYTES} bytes"),
    ],
)
def test_what_goes_wrong_is_named(site: str, path: str, words: str) -> None:
    with pytest.raises(DGemmaError, match=words) as caught:
        fetch_image(f"{site}/{path}")
    assert f"{site}/{path}" in str(caught.value)


def test_a_server_that_never_ends_is_left(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL_S", 0.0)
    with pytest.raises(DGemmaError, match="not downloaded within"):
        fetch_image(f"{site}/huge.png")


def test_a_server_that_is_not_there_is_named(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DGemmaError, match="could not be downloaded"):
        fetch_image("http://127.0.0.1:1/ok.png")
