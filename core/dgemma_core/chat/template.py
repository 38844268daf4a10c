"""Messages to token ids through the checkpoint's chat template; foreign text stays text.

Only the template's own markup becomes control tokens. The spelling of a control token (``<turn|>``, ``<|tool_call>``
...) inside a message, a document, a tool description or a tool result is replaced by a placeholder before the template
runs, and tokenized as plain characters afterwards. All other text gets the tokens that the tokenizer itself gives it,
added tokens that are no control tokens included.
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
from dgemma_core.api.surrogates import without_surrogates
from dgemma_core.chat.control_tokens import ControlTokens, control_spellings
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

    Attributes:
        controls: spellings of the tokens that only a template may write, by id.
        call_tokens: the tokens that only tool calls have.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.controls = control_spellings(tokenizer)
        self.call_tokens = ControlTokens.of(tokenizer).calls
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        for token in described["added_tokens"]:
            token["special"] = token["id"] in self.controls
        written = json.dumps(described)
        # Copies: other callers may switch padding, truncation and special tokens on the shared tokenizer.
        self._backend = _copy(written)
        # This one reads "<turn|>" as seven ordinary characters.
        self._plain = _copy(written)
        self._plain.encode_special_tokens = True
        spellings = sorted((*self.controls.values(), _OPEN, _CLOSE), key=len, reverse=True)
        self._control = re.compile("|".join(re.escape(s) for s in spellings))

    def text(self, text: str) -> list[int]:
        """Raw text to ids: the beginning-of-sequence token, then plain characters only."""
        bos = self._tokenizer.bos_token_id
        return [*([] if bos is None else [bos]), *self.plain(text)]

    def plain(self, text: str) -> list[int]:
        """Text to ids without a beginning-of-sequence token; control tokens' spellings are ordinary characters."""
        ids: list[int] = self._plain.encode(without_surrogates(text), add_special_tokens=False).ids
        return ids

    def markup(self, text: str) -> list[int]:
        """A prompt that already has the template's markup to ids, control tokens included. For trusted text only."""
        ids: list[int] = self._backend.encode(without_surrogates(text), add_special_tokens=False).ids
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
            return self._control.sub(lambda match: _placeholder(match.group(), escaped), without_surrogates(value))
        if isinstance(value, Mapping):
            return {self._escape(k, escaped): self._escape(v, escaped) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._escape(item, escaped) for item in value]
        return value


def _copy(written: str) -> Tokenizer:
    copy = Tokenizer.from_str(written)
    copy.no_padding()
    copy.no_truncation()
    return copy


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
