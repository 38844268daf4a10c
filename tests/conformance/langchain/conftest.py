"""The suite's pictures without a network: what it downloads from its one address is drawn here."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import httpx
import PIL.Image
import pytest

_ADDRESS = "https://raw.githubusercontent.com/langchain-ai/docs/"


@pytest.fixture(autouse=True)
def picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG file in the place of the suite's diagram; every other address is left alone."""
    get = httpx.get
    file = BytesIO()
    PIL.Image.radial_gradient("L").resize((320, 200)).convert("RGB").save(file, "PNG")

    def answer(url: str, **options: Any) -> httpx.Response:
        if url.startswith(_ADDRESS) and url.endswith(".png"):
            return httpx.Response(200, content=file.getvalue())
        return get(url, **options)

    monkeypatch.setattr(httpx, "get", answer)
