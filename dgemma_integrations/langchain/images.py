"""Images in LangChain's content blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgemma_core.api.images import Image
from dgemma_integrations.shared.images import Fetch

IMAGE_BLOCKS = frozenset(("image", "image_url", "input_image"))
"""Types of content blocks that hold an image."""


def to_image(block: Mapping[str, Any], where: str, fetch: Fetch | None) -> Image:
    """The image of a content block of one of :data:`IMAGE_BLOCKS`.

    Args:
        block: the block.
        where: the message that it is part of, for error messages.
        fetch: downloads images; None if that is not allowed.

    Raises:
        ValueError: the image cannot be read, or its web address may not be downloaded.
        DGemmaError: an image could not be downloaded.
    """
    source, encoded = _image_source(block)
    try:
        if encoded:
            return Image.from_base64(source)
        if source:
            return Image.from_url(source, fetch=fetch)
    except ValueError as error:
        raise ValueError(f"{where} has a content block of type {block['type']!r}: {error}") from error
    raise ValueError(
        f"{where} has a content block of type {block['type']!r} without image data (it has "
        f"{', '.join(sorted(map(str, block)))}): give 'base64' or 'url', not the id of a provider's file"
    )


def _image_source(block: Mapping[str, Any]) -> tuple[str, bool]:
    """An image's base64 text (and True) or its address (and False), from LangChain's, OpenAI's or Anthropic's form."""
    for holder in (block, block.get("source")):
        if not isinstance(holder, Mapping):
            continue
        # LangChain writes "base64"; older versions of it, and Anthropic, write "data".
        for name in ("base64", "data"):
            if isinstance(holder.get(name), str):
                return holder[name], True
        address = holder.get("image_url", holder.get("url"))
        if isinstance(address, Mapping):
            address = address.get("url")
        if isinstance(address, str):
            return address, False
    return "", False
