"""Reports answers that were cut for want of room to callers who see only an object."""

from __future__ import annotations

import json
from collections.abc import Mapping

from llama_index.core.base.llms.types import ChatResponse

from dgemma_integrations.llama_index.tools import selections
from dgemma_integrations.shared.on_length import OnLength, report_cut


def report_cut_response(response: ChatResponse, on_length: OnLength, name: str | None = None) -> None:
    """Warn or raise if a response was cut.

    Args:
        response: whole, or the last chunk of a stream.
        on_length: whether to warn or to raise.
        name: of the object's class; None for the names of the calls.

    Raises:
        AnswerCutError: the response was cut, and ``on_length`` is ``"raise"``.
    """
    if not isinstance(response.raw, Mapping) or response.raw.get("finish_reason") != "length":
        return
    calls = selections(response)
    text = json.dumps(calls[0].tool_kwargs, ensure_ascii=False) if calls else response.message.content or ""
    report_cut(on_length, name or ", ".join(call.tool_name for call in calls), text)
