"""Messages to token ids through the checkpoint's chat template, with foreign text kept text.

Only the template's own markup becomes control tokens. A control token's spelling inside a message, a document, a tool
description or a tool result (``<turn|>``, ``<|tool_call>`` ...) is swapped for a placeholder before the template runs,
and tokenized as plain characters afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tokenizers import Tokenizer

from dgemma_core.api.images import Image
from dgemma_core.api.messages import Message

_OPEN, _CLOSE = "\U000f5a5a", "\U000f5a5b"  # Private-use code points; their own occurrences are escaped like markup.
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class ImageMarks(Protocol):
    """How a checkpoint marks an image among its tokens: the begin token, a run of image tokens, the end token."""

    begin_id: int
    token_id: int
    end_id: int

    def tokens(self, image: Image) -> int:
        """Length of the run of image tokens."""


@dataclass(frozen=True)
class ImageSpan:
    """Where an image's tokens lie in a prompt."""

    start: int
    length: int
    image: Image


@dataclass(frozen=True)
class Rendered:
    """A prompt as token ids, image tokens where the vision tower's output goes."""

    ids: list[int]
    spans: tuple[ImageSpan, ...] = ()


class ChatTemplate:
    """Renders prompts for one tokenizer. Thread-safe.

    Args:
        tokenizer: the checkpoint's fast tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # A copy of its own: callers of the wrapper switch padding, truncation and special tokens on the shared one.
        self._backend: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.no_truncation()
        # The same vocabulary and merges without any added token: here "<turn|>" is seven ordinary characters.
        plain = json.loads(self._backend.to_str())
        controls = [token["content"] for token in plain["added_tokens"]]
        plain["added_tokens"] = []
        plain["post_processor"] = None
        self._plain = Tokenizer.from_str(json.dumps(plain))
        spellings = sorted((*controls, _OPEN, _CLOSE), key=len, reverse=True)
        self._control = re.compile("|".join(re.escape(s) for s in spellings))

    def text(self, text: str) -> list[int]:
        """Raw text to ids: the beginning-of-sequence token, then plain characters only."""
        bos = self._tokenizer.bos_token_id
        return [*([] if bos is None else [bos]), *self.plain(text)]

    def plain(self, text: str) -> list[int]:
        """Text to ids without a beginning-of-sequence token; control tokens' spellings are ordinary characters."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def markup(self, text: str) -> list[int]:
        """A prompt that already carries the template's markup to ids, control tokens active. For trusted text only."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        marks: ImageMarks | None = None,
        thinking: bool = False,
    ) -> Rendered:
        """A conversation to ids, ending where the assistant is to speak.

        Args:
            messages: at least one.
            tools: OpenAI function dicts.
            marks: how images are marked; only needed if there are some.
            thinking: ask the model to think before it answers.

        Raises:
            ValueError: the template refuses the conversation (its reason is in the message), or leaves images out.
        """
        escaped: list[str] = []
        conversation = [self._escape(_as_dict(message), escaped) for message in messages]
        declared = [self._escape(dict(tool), escaped) for tool in tools]
        # A template without the switch ignores it; it is left out where it is off, as other callers do.
        switches = {"enable_thinking": True} if thinking else {}
        try:
            rendered = self._tokenizer.apply_chat_template(
                conversation, tools=declared or None, tokenize=False, add_generation_prompt=True, **switches
            )
        except Exception as error:  # Templates raise jinja2 errors of their own choosing.
            raise ValueError(f"the chat template refused these messages: {error}") from error
        ids: list[int] = []
        # The template's own markup only: an image token's spelling in foreign text was swapped for a placeholder.
        places: list[int] = []
        for index, part in enumerate(_PLACEHOLDER.split(rendered)):
            if index % 2:
                ids.extend(self.plain(escaped[int(part)]))
            elif part:
                markup = self.markup(part)
                if marks is not None:
                    places.extend(len(ids) + i for i, token in enumerate(markup) if token == marks.token_id)
                ids.extend(markup)
        return _with_images(ids, places, messages, marks)

    def _escape(self, value: Any, escaped: list[str]) -> Any:
        if isinstance(value, str):
            return self._control.sub(lambda match: _placeholder(match.group(), escaped), value)
        if isinstance(value, Mapping):
            return {self._escape(k, escaped): self._escape(v, escaped) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._escape(item, escaped) for item in value]
        return value


def _placeholder(text: str, escaped: list[str]) -> str:
    escaped.append(text)
    return f"{_OPEN}{len(escaped) - 1}{_CLOSE}"


def _as_dict(message: Message) -> dict[str, Any]:
    """The message as chat templates of the transformers library expect it."""
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if not isinstance(message.content, str):
        out["content"] = [
            {"type": "image"} if isinstance(part, Image) else {"type": "text", "text": part} for part in message.parts
        ]
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        out["name"] = message.name
    return out


def _with_images(
    ids: list[int], places: Sequence[int], messages: Sequence[Message], marks: ImageMarks | None
) -> Rendered:
    """Widens each image token the template wrote to its image's begin token, run of image tokens and end token."""
    images = [image for message in messages for image in message.images]
    if len(places) != len(images):
        roles = ", ".join(dict.fromkeys(message.role for message in messages if message.images))
        raise ValueError(
            f"the checkpoint's chat template left out {len(images) - len(places)} of {len(images)} images (in messages "
            f"of role {roles}): put images into user messages, or use a checkpoint whose template takes them there"
        )
    if marks is None or not images:
        return Rendered(ids)
    # Gemma 4's template writes tools' results before the text of the message that called them: which image is which?
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
    return Rendered([*widened, *ids[done:]], tuple(spans))
