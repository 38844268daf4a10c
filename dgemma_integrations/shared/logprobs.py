"""Log-probabilities of an answer's text, in the forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dgemma_core.api.events import TokenLogprob

_INCOMPLETE = "\ufffd"


def text_tokens(logprobs: Iterable[TokenLogprob] | None) -> list[TokenLogprob]:
    """The tokens of the text, without those of reasoning and calls and without control tokens."""
    return [token for token in logprobs or () if token.in_text]


def bytes_of(text: str) -> list[int] | None:
    """A token's bytes; None for a token that is only a part of a character."""
    return None if _INCOMPLETE in text else list(text.encode())


def chat_logprobs(logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
    """``logprobs`` of a chat completion: ``{"content": [...]}`` with an entry for each token of the text."""
    return {
        "content": [
            _entry(token.text, token.logprob)
            | {"top_logprobs": [_entry(text, logprob) for _, text, logprob in token.top]}
            for token in text_tokens(logprobs)
        ]
    }


def completion_logprobs(logprobs: Iterable[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """``logprobs`` of a text completion: lists with an entry for each token of the text.

    Args:
        logprobs: of the answer, or of a part of it.
        offset: characters of the answer before them.
    """
    tokens = text_tokens(logprobs)
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_likeliest(token) for token in tokens],
        "text_offset": offsets,
    }


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "bytes": bytes_of(text), "logprob": logprob}


def _likeliest(token: TokenLogprob) -> dict[str, float]:
    """The alternatives by text. OpenAI adds the chosen token, too."""
    found = {token.text: token.logprob}
    for _, text, logprob in token.top:
        found.setdefault(text, logprob)
    return dict(sorted(found.items(), key=lambda item: -item[1]))
