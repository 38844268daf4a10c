"""Pictures drawn from a seed."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import PIL.Image
import torch

from dgemma_core import Image


def picture(seed: int, width: int = 96, height: int = 96) -> PIL.Image.Image:
    """Random blocks of color: every patch differs from its neighbours."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (6, 6, 3), generator=generator, dtype=torch.uint8)
    return PIL.Image.fromarray(small.numpy()).resize((width, height), PIL.Image.Resampling.NEAREST)


def encoded(image: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def img(seed: int, width: int = 96, height: int = 96) -> Image:
    return Image.from_pil(picture(seed, width, height))
