"""A conversation with two pictures, and what transformers makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
from torch import Tensor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from dgemma_core import Image, Message
from tests.checkpoints import CONTROL_TOKENS, make_tokenizer
from tests.helpers.pictures import picture

IMAGE_ID = CONTROL_TOKENS.index("<|image|>")
PICTURES = [picture(1, 96, 96), picture(2, 200, 150)]
MESSAGES = [
    Message("system", "fox"),
    Message("user", ["quick ", Image.from_pil(PICTURES[0]), " brown ", Image.from_pil(PICTURES[1])]),
    Message("assistant", "lazy dog"),
    Message("user", "question?"),
]
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "fox"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "quick "},
            {"type": "image"},
            {"type": "text", "text": " brown "},
            {"type": "image"},
        ],
    },
    {"role": "assistant", "content": "lazy dog"},
    {"role": "user", "content": "question?"},
]


def with_small_images(folder: Path) -> str:
    settings = {"image_processor": {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 70}}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return str(folder)


def expanded(text: str, counts: list[int]) -> str:
    """A rendered prompt as the reference's processor widens it."""
    pieces = text.split("<|image|>")
    assert len(pieces) == len(counts) + 1
    marks = [f"<|image>{'<|image|>' * count}<image|>" for count in counts]
    return "".join(a + b for a, b in zip(pieces, [*marks, ""], strict=True))


def reference_inputs(conversation: list[dict[str, Any]], pictures: list[PIL.Image.Image]) -> dict[str, Tensor]:
    """What transformers' processor for this model makes of a conversation; the class itself wants torchvision."""
    tokenizer = make_tokenizer()
    out = Gemma4ImageProcessorPil(max_soft_tokens=70)(images=pictures, return_tensors="pt")
    rendered = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    text = expanded(rendered, out["num_soft_tokens_per_image"].tolist())
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return {
        "input_ids": ids,
        "pixel_values": out["pixel_values"],
        "image_position_ids": out["image_position_ids"],
        "mm_token_type_ids": (ids == IMAGE_ID).long(),
    }
