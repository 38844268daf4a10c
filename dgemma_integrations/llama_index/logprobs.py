"""The engine's log-probabilities -> LlamaIndex's."""

from __future__ import annotations

from collections.abc import Iterable

from llama_index.core.base.llms.types import LogProb

from dgemma_core.api.events import TokenLogprob
from dgemma_integrations.shared.logprobs import bytes_of, text_tokens


def log_probs(logprobs: Iterable[TokenLogprob] | None) -> list[list[LogProb]] | None:
    """A list for each token of the text: the token itself, then its likeliest alternatives. None if not asked for."""
    if logprobs is None:
        return None
    return [
        [
            _log_prob(token.text, token.logprob),
            *(_log_prob(text, logprob) for other, text, logprob in token.top if other != token.token_id),
        ]
        for token in text_tokens(logprobs)
    ]


def _log_prob(text: str, logprob: float) -> LogProb:
    return LogProb(token=text, logprob=logprob, bytes=bytes_of(text) or [])
