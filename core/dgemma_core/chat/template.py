"""Messages to token ids through the checkpoint's chat template; foreign text stays text.

Only the template's own markup becomes control tokens. The spelling of a control token (``<turn|>``, ``<|tool_call>``
...) inside a message, a document, a tool description or a tool result is replaced by a placeholder before the template
runs, and tokenized as plain characters afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from dgemma_core.api.images import Image
from dgemma_core.api.messages import Message
from dgemma_core.chat.image_spans import ImageMarks, ImageSpan, widen_images

# Private-use code points. Where a text contains them, they are escaped, too.
_OPEN, _CLOSE = "\U000f5a5a", "\U000f5a5b"
_PLACEHOLDER = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


@dataclass(frozen=True)
class Rendered:
    """A prompt.

    Attributes:
        ids: token ids, with image tokens where the vision tower's output goes.
        spans: where the images lie in ``ids``.
    """

    ids: list[int]
    spans: tuple[ImageSpan, ...] = ()


class ChatTemplate:
    """Renders prompts for one tokenizer. Thread-safe.

    Args:
        tokenizer: the checkpoint's fast tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # A copy: other callers may switch padding, truncation and special tokens on the shared tokenizer.
        self._backend: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.no_truncation()
        # The same vocabulary and merges without added tokens: it reads "<turn|>" as seven ordinary characters.
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
        """A prompt that already has the template's markup to ids, control tokens included. For trusted text only."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        marks: ImageMarks | None = None,
        thinking: bool = False,
    ) -> Rendered:
        """A conversation to ids, up to the beginning of the assistant's turn.

        Args:
            messages: at least one.
            tools: OpenAI function dicts.
            marks: how images are marked; needed only if there are images.
            thinking: ask the model to think before it answers.

        Raises:
            ValueError: the template refuses the conversation (its reason is in the message), or leaves images out.
        """
        if self._tokenizer.chat_template is None:
            raise ValueError(
                "this checkpoint has no chat template, so it takes no messages: give the prompt as a text or as token "
                "ids, or download chat_template.jinja"
            )
        escaped: list[str] = []
        conversation = [self._escape(_as_dict(message), escaped) for message in messages]
        declared = [self._escape(dict(tool), escaped) for tool in tools]
        # A template without the switch ignores it. It is passed only if it is on, as transformers' own callers do.
        switches = {"enable_thinking": True} if thinking else {}
        try:
            rendered = self._tokenizer.apply_chat_template(
                conversation, tools=declared or None, tokenize=False, add_generation_prompt=True, **switches
            )
        except Exception as error:  # Templates may raise any jinja2 error.
            raise ValueError(f"the chat template refused these messages: {error}") from error
        ids: list[int] = []
        places: list[int] = []  # of image tokens that the template wrote; in foreign text they are placeholders
        for index, part in enumerate(_PLACEHOLDER.split(rendered)):
            if index % 2:
                ids.extend(self.plain(escaped[int(part)]))
            elif part:
                markup = self.markup(part)
                if marks is not None:
                    places.extend(len(ids) + i for i, token in enumerate(markup) if token == marks.token_id)
                ids.extend(markup)
        return Rendered(*widen_images(ids, places, messages, marks))

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
    """The message in the form that chat templates of the transformers library expect."""
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
