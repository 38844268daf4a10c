"""Pixels as text: compressed with zlib, then written as base64."""

from __future__ import annotations

import base64
import binascii
import zlib

_FAST = 1  # zlib's level; higher levels take many times as long and save a few per cent.


def pack(pixels: bytes) -> str:
    """Pixels as text."""
    return base64.b64encode(zlib.compress(pixels, _FAST)).decode("ascii")


def unpack(text: str, size: int) -> bytes:
    """The pixels that :func:`pack` wrote.

    Args:
        text: written by :func:`pack`.
        size: number of bytes to expect.

    Raises:
        ValueError: not base64, not compressed by zlib, or another number of bytes.
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"pixels: the image's data are not valid base64: {error}") from error
    reader = zlib.decompressobj()
    try:
        # At most one byte more than expected, so that a small text cannot fill the memory.
        pixels = reader.decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(f"pixels: the image's data cannot be decompressed: {error}") from error
    if len(pixels) != size or not reader.eof or reader.unused_data:
        raise ValueError(f"pixels: the image's data do not hold the {size} bytes that its width and height ask for")
    return pixels
