"""Images as the engine takes them. Each is decoded once, and compared by its pixels.

Pillow decodes and is an optional extra; this module imports without it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from dgemma_core.api.json_form import JsonForm
from dgemma_core.api.json_values import read_object
from dgemma_core.api.pixels import pack, unpack

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_IMAGE_BYTES = 20 * 2**20
"""Most bytes of an encoded image (a file, a download, decoded base64)."""
MAX_IMAGE_PIXELS = 40_000_000
"""Most pixels of an image. Each takes three bytes while a request waits."""

# Pillow's other readers hand files to external programs or are rarely tested.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_DATA_URI = re.compile(r"data:(?P<kind>[^,;]*)(?P<parameters>(?:;[^,;]*)*),", re.IGNORECASE)


@dataclass(frozen=True)
class Image(JsonForm):
    """A picture, as rows of RGB pixels. Two images are equal if all their pixels are.

    Use one of the constructors: :meth:`of`, :meth:`from_file`, :meth:`from_bytes`, :meth:`from_base64`,
    :meth:`from_url`, :meth:`from_pil`.

    Args:
        width: in pixels.
        height: in pixels.
        pixels: ``height * width * 3`` bytes, row by row.

    Attributes:
        digest: SHA-256 of size and pixels, hexadecimal.

    Raises:
        ValueError: ``pixels`` has the wrong length, or the image has more than ``MAX_IMAGE_PIXELS``.
    """

    width: int = field(compare=False)
    height: int = field(compare=False)
    pixels: bytes = field(compare=False, repr=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        _check_size(self.width, self.height)
        if len(self.pixels) != 3 * self.width * self.height:
            raise ValueError(
                f"pixels: {len(self.pixels)} bytes, but {self.width} x {self.height} RGB pixels take "
                f"{3 * self.width * self.height}"
            )
        digest = hashlib.sha256(f"{self.width}x{self.height}:".encode())
        digest.update(self.pixels)
        object.__setattr__(self, "digest", digest.hexdigest())

    @classmethod
    def of(cls, source: Any, *, fetch: Callable[[str], bytes] | None = None) -> Image:
        """An image from any accepted source.

        Args:
            source: an ``Image``, a Pillow image, encoded bytes, a path, or a string. A string is a ``data:`` URI or a
                web address, else a path. For bare base64 use :meth:`from_base64`.
            fetch: see :meth:`from_url`.

        Raises:
            ValueError: not an image, or too large.
            ImportError: Pillow is not installed.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, bytes | bytearray | memoryview):
            return cls.from_bytes(bytes(source))
        if isinstance(source, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", source):
            return cls.from_url(source, fetch=fetch)
        if isinstance(source, str | os.PathLike):
            return cls.from_file(source)
        if isinstance(source, pillow().Image.Image):
            return cls.from_pil(source)
        raise ValueError(
            f"{type(source).__name__} is not an image: give a Pillow image, encoded bytes, a path or a data: URI"
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Image:
        """Read an image file. Never give it a path that somebody else chooses.

        Raises:
            ValueError: no such file, not an image, or too large.
            ImportError: Pillow is not installed.
        """
        try:
            with open(path, "rb") as file:
                # One byte more than allowed, so that a file that is too large is noticed.
                data = file.read(MAX_IMAGE_BYTES + 1)
        except OSError as error:
            raise ValueError(f"image file {os.fspath(path)!r} cannot be read: {error}") from error
        return cls.from_bytes(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Image:
        """Decode a PNG, JPEG, WebP, GIF, BMP or TIFF file. If it has several frames, the first is taken.

        Raises:
            ValueError: another format, damaged, or too large.
            ImportError: Pillow is not installed.
        """
        if len(data) > MAX_IMAGE_BYTES:
            raise ValueError(f"the image has more than {MAX_IMAGE_BYTES} bytes, the limit: scale it down first")
        pil = pillow()
        try:
            with pil.Image.open(BytesIO(data), formats=_FORMATS) as opened:
                # Checked before decoding, because a small file may hold a huge picture.
                _check_size(*opened.size)
                return cls.from_pil(opened)
        except pil.UnidentifiedImageError as error:
            raise ValueError(
                f"the image's {len(data)} bytes are none of {', '.join(_FORMATS)}: convert it to PNG or JPEG"
            ) from error
        except pil.Image.DecompressionBombError as error:
            raise ValueError(f"the image has more than {MAX_IMAGE_PIXELS} pixels, the limit: scale it down") from error
        except (OSError, SyntaxError) as error:
            raise ValueError(f"the image cannot be decoded, its data are damaged or incomplete: {error}") from error

    @classmethod
    def from_base64(cls, text: str | bytes) -> Image:
        """Decode an image file in base64. Line breaks in it are fine.

        Raises:
            ValueError: not base64, not an image, or too large.
            ImportError: Pillow is not installed.
        """
        if len(text) > 2 * MAX_IMAGE_BYTES:
            raise ValueError(f"the image has more than {MAX_IMAGE_BYTES} bytes, the limit: scale it down first")
        raw = text.encode() if isinstance(text, str) else text
        try:
            data = base64.b64decode(b"".join(raw.split()), validate=True)
        except binascii.Error as error:
            raise ValueError(f"the image's data are not valid base64: {error}") from error
        return cls.from_bytes(data)

    @classmethod
    def from_url(cls, url: str, *, fetch: Callable[[str], bytes] | None = None) -> Image:
        """Decode a ``data:`` URI, or download an image with ``fetch``.

        Args:
            url: ``data:...``, or ``http(s)://...`` together with ``fetch``. Other schemes are refused.
            fetch: downloads a web address and returns the bytes. Without it web addresses are refused.

        Raises:
            ValueError: a scheme that is not allowed, not an image, or too large.
            ImportError: Pillow is not installed.
        """
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return cls._from_data_uri(url)
        if scheme not in ("http", "https"):
            raise ValueError(f"image address {_shortened(url)!r}: must be a data: URI or begin with https://")
        if fetch is None:
            raise ValueError(
                f"image address {_shortened(url)!r}: addresses are not downloaded unless that is allowed. Download it "
                "yourself and give the bytes or a data: URI, or allow it (allow_image_urls=True on a model object, "
                "fetch= in Image.from_url)"
            )
        return cls.from_bytes(fetch(url))

    @classmethod
    def from_pil(cls, image: PillowImage) -> Image:
        """Copy a Pillow image: turned upright by its EXIF data, with white under transparent pixels.

        Raises:
            ValueError: too large, or a color mode that has no RGB form.
            ImportError: Pillow is not installed.
        """
        pil = pillow()
        _check_size(*image.size)
        upright = pil.ImageOps.exif_transpose(image) or image
        if "A" in upright.getbands() or "transparency" in upright.info:
            upright = upright.convert("RGBA")
            white = pil.Image.new("RGBA", upright.size, (255, 255, 255, 255))
            upright = pil.Image.alpha_composite(white, upright)
        rgb = upright.convert("RGB")
        return cls(rgb.width, rgb.height, rgb.tobytes())

    def to_pil(self) -> PillowImage:
        """The same picture as a Pillow image."""
        image: PillowImage = pillow().Image.frombytes("RGB", (self.width, self.height), self.pixels)
        return image

    def to_dict(self) -> dict[str, Any]:
        """The picture as plain JSON: its size, its pixels (compressed by zlib, as base64) and its digest."""
        return {"width": self.width, "height": self.height, "pixels": pack(self.pixels), "digest": self.digest}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Image:
        """The picture that ``to_dict`` wrote.

        Raises:
            ValueError: an unknown or missing key, a wrong type, or pixels that do not match the size or the digest.
        """
        found = read_object("Image", data, {"width": int, "height": int, "pixels": str, "digest": str})
        width, height, digest = found["width"], found["height"], found["digest"]
        # Checked before decompressing, because a short text may hold a huge picture.
        _check_size(width, height)
        image = cls(width, height, unpack(found["pixels"], 3 * width * height))
        if image.digest != digest:
            raise ValueError(f"digest={digest!r}: the image's pixels have the digest {image.digest!r}")
        return image

    @classmethod
    def _from_data_uri(cls, uri: str) -> Image:
        match = _DATA_URI.match(uri)
        if match is None:
            raise ValueError(f"image address {_shortened(uri)!r}: a data: URI has a comma before its data")
        kind = match["kind"].lower()
        if kind and not kind.startswith("image/") and kind != "application/octet-stream":
            raise ValueError(f"image address {_shortened(uri)!r}: holds {kind!r}, not an image")
        data = uri[match.end() :]
        if match["parameters"].lower().endswith(";base64"):
            return cls.from_base64(unquote_to_bytes(data))
        return cls.from_bytes(unquote_to_bytes(data))


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"the image has {width} x {height} pixels: there is nothing to see")
    if width * height > MAX_IMAGE_PIXELS:
        raise ValueError(
            f"the image has {width} x {height} pixels, more than {MAX_IMAGE_PIXELS}, the limit: scale it down first"
        )


def _shortened(url: str) -> str:
    return url if len(url) <= 80 else f"{url[:77]}..."


def pillow() -> Any:
    """The package PIL.

    Raises:
        ImportError: Pillow is not installed; the message says how to install it.
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise ImportError("images need Pillow: pip install 'dgemma[images]'") from error
    return PIL
