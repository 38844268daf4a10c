"""Downloads images that a message names by their address, if the model object allows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dgemma_core.api.images import MAX_IMAGE_BYTES
from dgemma_core.errors import DGemmaError

if TYPE_CHECKING:
    import httpx

Fetch = Callable[[str], bytes]

CONNECT_S = 10.0
"""Most seconds to wait for a connection, and between two pieces of the answer."""
TOTAL_S = 30.0
"""Most seconds for a whole download."""
_MAX_REDIRECTS = 5


def fetcher(allowed: bool) -> Fetch | None:
    """The function that downloads an image, or None if that is not allowed."""
    return fetch_image if allowed else None


def fetch_image(url: str, *, transport: httpx.BaseTransport | None = None) -> bytes:
    """Download an image. It blocks, so do not call it on an event loop.

    Args:
        url: an ``http(s)`` address.
        transport: sends the requests; httpx's own if not given.

    Raises:
        DGemmaError: the server cannot be reached or refuses, or the download is too large or takes too long.
        ImportError: httpx is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise ImportError("downloading images needs httpx: pip install 'dgemma[images]'") from error
    deadline = time.monotonic() + TOTAL_S
    data = bytearray()
    try:
        with (
            httpx.Client(
                timeout=CONNECT_S, follow_redirects=True, max_redirects=_MAX_REDIRECTS, transport=transport
            ) as client,
            client.stream("GET", url, headers={"Accept": "image/*"}) as response,
        ):
            response.raise_for_status()
            for piece in response.iter_bytes():
                data += piece
                if len(data) > MAX_IMAGE_BYTES:
                    raise DGemmaError(f"image address {url!r}: more than {MAX_IMAGE_BYTES} bytes, the limit")
                if time.monotonic() > deadline:
                    raise DGemmaError(f"image address {url!r}: not downloaded within {TOTAL_S:.0f} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DGemmaError(f"image address {url!r} could not be downloaded: {error}") from error
    return bytes(data)
