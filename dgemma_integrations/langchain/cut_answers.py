"""A step between a model and the parser of its answers: it reports answers that were cut for want of room."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableGenerator

from dgemma_integrations.shared.on_length import OnLength, report_cut


def cut_reporter(on_length: OnLength, name: str) -> Runnable[AIMessage, AIMessage]:
    """Passes messages and chunks on. At the end of an answer that was cut it warns or raises.

    Args:
        on_length: whether to warn or to raise.
        name: of the answer's class.
    """

    def report(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
        seen: list[AIMessage] = []
        for message in messages:
            seen.append(message)
            _report(seen, on_length, name)
            yield message

    async def areport(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
        seen: list[AIMessage] = []
        async for message in messages:
            seen.append(message)
            _report(seen, on_length, name)
            yield message

    return RunnableGenerator(report, areport)


def _report(seen: Sequence[AIMessage], on_length: OnLength, name: str) -> None:
    # The metadata come with the whole message, or with a stream's last chunk.
    if seen[-1].response_metadata.get("finish_reason") == "length":
        calls = [call for message in seen for call in message.tool_calls]
        text = json.dumps(calls[0]["args"], ensure_ascii=False) if calls else "".join(m.text for m in seen)
        report_cut(on_length, name, text)
