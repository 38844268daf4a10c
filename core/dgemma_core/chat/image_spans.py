"""Where the tokens of images lie in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dgemma_core.api.images import Image
from dgemma_core.api.messages import Message


class ImageMarks(Protocol):
    """How a checkpoint marks an image in a prompt: a begin token, a run of image tokens, an end token.

    Attributes:
        begin_id: the begin token.
        token_id: the image token.
        end_id: the end token.
    """

    begin_id: int
    token_id: int
    end_id: int

    def tokens(self, image: Image) -> int:
        """Length of an image's run of image tokens."""


@dataclass(frozen=True)
class ImageSpan:
    """An image's run of image tokens in a prompt.

    Attributes:
        start: position of the first one.
        length: how many they are.
        image: the image.
    """

    start: int
    length: int
    image: Image


def widen_images(
    ids: list[int], places: Sequence[int], messages: Sequence[Message], marks: ImageMarks | None
) -> tuple[list[int], tuple[ImageSpan, ...]]:
    """Replace each image token that a chat template wrote by a begin token, a run of image tokens and an end token.

    Args:
        ids: the prompt as the template wrote it.
        places: positions in ``ids`` of the image tokens.
        messages: the conversation, which holds the images.
        marks: how images are marked; needed only if there are images.

    Returns:
        The prompt's token ids, and where the images lie in it.

    Raises:
        ValueError: the template left images out, or may have swapped them.
    """
    images = [image for message in messages for image in message.images]
    if len(places) != len(images):
        roles = ", ".join(dict.fromkeys(message.role for message in messages if message.images))
        raise ValueError(
            f"the checkpoint's chat template left out {len(images) - len(places)} of {len(images)} images (in messages "
            f"of role {roles}): put images into user messages, or use a checkpoint whose template takes them there"
        )
    if marks is None or not images:
        return ids, ()
    # Gemma 4's template writes a tool's result before the text of the message that called it, so it may swap images.
    calling = any(message.tool_calls and message.images for message in messages)
    if calling and any(message.role == "tool" and message.images for message in messages):
        raise ValueError(
            "images both in an assistant message with tool calls and in a tool message: chat templates may swap them. "
            "Leave them out of the assistant message"
        )
    widened: list[int] = []
    spans = []
    done = 0
    for place, image in zip(places, images, strict=True):
        widened += [*ids[done:place], marks.begin_id]
        spans.append(ImageSpan(len(widened), marks.tokens(image), image))
        widened += [*[marks.token_id] * spans[-1].length, marks.end_id]
        done = place + 1
    return [*widened, *ids[done:]], tuple(spans)
