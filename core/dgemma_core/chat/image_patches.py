"""From an image to the patches that a vision tower reads. Runs on the caller's thread.

Preprocessing is transformers' own for Gemma 4, in its Pillow form; it needs no torchvision.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dgemma_core.api.images import Image, pillow
from dgemma_core.chat.image_spans import ImageSpan
from dgemma_core.errors import CheckpointError

# Sizes the image processor knows: image tokens of one image, at most.
_BUDGETS = (1120, 560, 280, 140, 70)
# Patches of recent images: a conversation gives the same ones with every turn.
_KEPT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PlacedImage:
    """An image's part of a prompt, ready for the vision tower.

    Attributes:
        start: position of its first image token.
        length: its image tokens.
        digest: tells images apart.
        patches: float32 ``[patches, patch pixels]``.
        positions: int64 ``[patches, 2]``, column and row of each patch.
    """

    start: int
    length: int
    digest: str
    patches: Tensor
    positions: Tensor

    @property
    def stop(self) -> int:
        """Position after its last image token."""
        return self.start + self.length

    @property
    def identity(self) -> int:
        """A negative number that stands for its tokens when prompts are compared; no token id is negative."""
        return -1 - int(self.digest, 16)


class ImagePreprocessor:
    """Cuts images into the patches that a checkpoint's vision tower reads. Thread-safe; reads no weights.

    Args:
        config: the checkpoint's ``DiffusionGemmaConfig``.
        folder: where its files lie, for its image processor's configuration; without one the defaults hold.

    Attributes:
        begin_id: token before an image.
        token_id: token that stands for a part of an image.
        end_id: token after an image.

    Raises:
        CheckpointError: the checkpoint cannot take images; says why.
        ImportError: Pillow is not installed.
    """

    def __init__(self, config: Any, folder: Path | None) -> None:
        vision = config.vision_config
        if vision is None:
            raise CheckpointError(
                "this checkpoint has no vision tower (no vision_config), it takes text only: leave images out, or use "
                "one that has, such as google/diffusiongemma-26B-A4B-it"
            )
        ids = (config.boi_token_id, config.image_token_id, config.eoi_token_id)
        if any(i is None or not 0 <= i < config.text_config.vocab_size for i in ids):
            raise CheckpointError(
                f"this checkpoint's boi_token_id, image_token_id and eoi_token_id are {ids}, but its vocabulary has "
                f"{config.text_config.vocab_size} tokens: it cannot mark images in a prompt. Correct config.json, or "
                "leave images out"
            )
        self.begin_id, self.token_id, self.end_id = ids
        self._patch: int = vision.patch_size
        self._kernel: int = vision.pooling_kernel_size
        self._side: int = vision.position_embedding_size
        self._processor = _image_processor(vision, folder)
        self._kept: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def tokens(self, image: Image) -> int:
        """Image tokens an image takes.

        Raises:
            ValueError: an image too long and narrow for the vision tower.
        """
        return self._fit(image)[1]

    def place(self, span: ImageSpan) -> PlacedImage:
        """The image of a prompt's span as patches.

        Raises:
            ValueError: as :meth:`tokens`.
        """
        return PlacedImage(span.start, span.length, span.image.digest, *self.patches(span.image))

    def patches(self, image: Image) -> tuple[Tensor, Tensor]:
        """An image's patches and their positions, as in :class:`PlacedImage`. Those of recent images are kept.

        Raises:
            ValueError: as :meth:`tokens`.
        """
        with self._lock:
            if image.digest in self._kept:
                self._kept.move_to_end(image.digest)
                return self._kept[image.digest]
        patches = self._cut(image)
        with self._lock:
            if image.digest not in self._kept:
                self._kept[image.digest] = patches
                self._kept_bytes += _nbytes(patches)
            while self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= _nbytes(self._kept.popitem(last=False)[1])
        return patches

    def _cut(self, image: Image) -> tuple[Tensor, Tensor]:
        budget, length = self._fit(image)
        out = self._processor(images=[image.to_pil()], max_soft_tokens=budget, do_resize=True, return_tensors="pt")
        # The processor pads up to the budget. The padding would be computed for nothing.
        used = length * self._kernel**2
        return out["pixel_values"][0, :used].clone(), out["image_position_ids"][0, :used].clone()

    def _fit(self, image: Image) -> tuple[int, int]:
        """The largest budget whose sides fit the tower's positions, and the tokens it takes."""
        from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

        side = self._patch * self._kernel
        for budget in _BUDGETS:
            if budget > self._processor.max_soft_tokens:
                continue
            height, width = get_aspect_ratio_preserving_size(
                image.height, image.width, self._patch, budget * self._kernel**2, self._kernel
            )
            if max(height, width) <= self._side * self._patch:
                return budget, (height // side) * (width // side)
        raise ValueError(
            f"an image of {image.width} x {image.height} pixels is too long and narrow for this checkpoint, whose "
            f"vision tower sees at most {self._side} patches a side: cut it into pieces"
        )


def image_identities(tokens: Sequence[int], images: Sequence[PlacedImage]) -> list[int]:
    """A prompt's tokens, each image's replaced by its identity, so that prompts with other images differ."""
    marked = list(tokens)
    for image in images:
        marked[image.start : image.stop] = [image.identity] * image.length
    return marked


def _nbytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _image_processor(vision: Any, folder: Path | None) -> Any:
    pillow()  # Without it the class below would fail and not say what to do.
    # The class that AutoProcessor picks needs torchvision; this one does not.
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    if folder is None or not _has_processor_config(folder):
        return Gemma4ImageProcessorPil(patch_size=vision.patch_size, pooling_kernel_size=vision.pooling_kernel_size)
    try:
        processor = Gemma4ImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"the image processor's configuration in {folder} cannot be used: {error}") from error
    for name in ("patch_size", "pooling_kernel_size"):
        own, wanted = getattr(processor, name), getattr(vision, name)
        if own != wanted:
            raise CheckpointError(
                f"{folder}: the image processor's {name} is {own}, the vision tower's {wanted}; download it anew"
            )
    return processor


def _has_processor_config(folder: Path) -> bool:
    if (folder / "preprocessor_config.json").is_file():
        return True
    try:
        return "image_processor" in json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
