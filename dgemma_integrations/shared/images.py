"""Images of messages that are only named by their address: downloads, if the model object allows them."""

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
"""Seconds to wait for a server: for the connection, and between two pieces of the answer."""
TOTAL_S = 30.0
"""Seconds a whole download may take."""
_MAX_REDIRECTS = 5


def fetcher(allowed: bool) -> Fetch | None:
    """How to download an image, or None where the model object does not allow it."""
    return fetch_image if allowed else None


def fetch_image(url: str, *, transport: httpx.BaseTransport | None = None) -> bytes:
    """Downloads an image. Blocks: call it off the event loop.

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
