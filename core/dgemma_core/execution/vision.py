"""The vision tower: an image's patches -> embeddings of its image tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgemma_core.errors import CheckpointError
from dgemma_core.execution.backend import ImageInput


class VisionTower:
    """Runs a loaded model's vision tower. For the worker thread only.

    Args:
        model: a loaded ``DiffusionGemmaForBlockDiffusion`` in eval mode.

    Attributes:
        bidirectional: whether an image's tokens see each other in both directions.
    """

    def __init__(self, model: Any) -> None:
        self._encoder = model.model.encoder
        self.bidirectional: bool = model.config.text_config.use_bidirectional_attention == "vision"

    def __call__(self, image: ImageInput, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Embeddings ``[length, hidden]`` of an image's tokens.

        Images run one by one, so that an image's numbers do not depend on its neighbours.

        Raises:
            CheckpointError: the vision tower gives another number of embeddings.
        """
        out = self._encoder.get_image_features(
            image.patches[None].to(device), image.positions[None].to(device), return_dict=True
        )
        features: Tensor = out.pooler_output.reshape(-1, out.pooler_output.shape[-1])
        if len(features) != image.length:
            raise CheckpointError(
                f"the vision tower gave {len(features)} embeddings for an image of {image.length} tokens: its "
                "configuration and the image processor's do not fit together"
            )
        return features.to(device, dtype)
