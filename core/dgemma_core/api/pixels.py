"""Pixels as text: compressed by zlib and written as base64."""

from __future__ import annotations

import base64
import binascii
import zlib

_FAST = 1  # zlib's level: higher ones take many times as long for a few per cent


def pack(pixels: bytes) -> str:
    """Pixels as text."""
    return base64.b64encode(zlib.compress(pixels, _FAST)).decode("ascii")


def unpack(text: str, size: int) -> bytes:
    """The pixels that :func:`pack` wrote.

    Args:
        text: what it wrote.
        size: bytes of pixels in it.

    Raises:
        ValueError: not base64, not compressed by zlib, or another number of bytes.
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"pixels: the image's data are not valid base64: {error}") from error
    reader = zlib.decompressobj()
    try:
        # One byte more than allowed shows that there are too many, however many there are.
        pixels = reader.decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(f"pixels: the image's data cannot be decompressed: {error}") from error
    if len(pixels) != size or not reader.eof or reader.unused_data:
        raise ValueError(f"pixels: the image's data do not hold the {size} bytes that its width and height ask for")
    return pixels
