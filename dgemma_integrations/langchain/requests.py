"""Sends the requests of one LangChain call to the engine. When the call ends, for any reason, its requests end too."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace

from dgemma_core.api.events import BlockEvent, DraftEvent, FinishedEvent, Generation
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.protocol import Engine
from dgemma_core.api.request import Prompt, Request
from dgemma_integrations.langchain.errors import translated_errors
from dgemma_integrations.langchain.settings import Call
from dgemma_integrations.shared.sampling_settings import with_drafts
from dgemma_integrations.shared.turns import Turns


def generate(engine: Engine, prompts: Sequence[Prompt], call: Call) -> list[Generation]:
    """Submit all prompts at once, so that they share forward passes, and wait for all answers.

    If the queue is full, later prompts wait for room.
    """
    with _submitted(engine, prompts, call) as handles:
        if call.on_draft is None:
            return [handle.result() for handle in handles]
        return [_last(list(_events(handle, call))) for handle in handles]


async def agenerate(engine: Engine, prompts: Sequence[Prompt], call: Call) -> list[Generation]:
    """:func:`generate` on an event loop."""
    async with _asubmitted(engine, prompts, call) as handles:
        if call.on_draft is None:
            return [await handle for handle in handles]
        return [_last([event async for event in _aevents(handle, call)]) for handle in handles]


def stream(engine: Engine, prompt: Prompt, call: Call) -> Generator[BlockEvent | FinishedEvent]:
    """Confirmed text as it comes, then the end. Closing the generator early ends the request."""
    with _submitted(engine, [prompt], call) as (handle,):
        yield from _events(handle, call)


async def astream(engine: Engine, prompt: Prompt, call: Call) -> AsyncGenerator[BlockEvent | FinishedEvent]:
    """:func:`stream` on an event loop."""
    async with _asubmitted(engine, [prompt], call) as (handle,), aclosing(_aevents(handle, call)) as events:
        async for event in events:
            yield event


def watch(engine: Engine, prompt: Prompt, call: Call) -> Generator[BlockEvent | DraftEvent | FinishedEvent]:
    """:func:`stream`, with the drafts in between if the call asks for draft events."""
    with _submitted(engine, [prompt], _drafting(call)) as (handle,):
        for event in _all_events(handle, call):
            if call.draft_events or not isinstance(event, DraftEvent):
                yield event


async def awatch(engine: Engine, prompt: Prompt, call: Call) -> AsyncGenerator[BlockEvent | DraftEvent | FinishedEvent]:
    """:func:`watch` on an event loop."""
    call = _drafting(call)
    async with _asubmitted(engine, [prompt], call) as (handle,), aclosing(_all_aevents(handle, call)) as events:
        async for event in events:
            if call.draft_events or not isinstance(event, DraftEvent):
                yield event


@contextmanager
def _submitted(engine: Engine, prompts: Sequence[Prompt], call: Call) -> Iterator[list[RequestHandle]]:
    if inspect.iscoroutinefunction(call.on_draft):
        raise ValueError(
            f"on_draft={call.on_draft!r}: only async methods await a coroutine function; use one, or give a plain "
            "function"
        )
    # Loaded before the clock of `timeout` starts.
    engine.load()
    handles: list[RequestHandle] = []
    try:
        with translated_errors():
            for prompt in prompts:
                # If the queue is full, the first prompt is refused, and later ones wait for room.
                handles.append(engine.submit(call.request(prompt), wait=bool(handles)))
        yield handles
    finally:
        _cancel(handles)


@asynccontextmanager
async def _asubmitted(engine: Engine, prompts: Sequence[Prompt], call: Call) -> AsyncIterator[list[RequestHandle]]:
    await engine.aload()
    handles: list[RequestHandle] = []
    try:
        with translated_errors():
            for prompt in prompts:
                handles.append(await _asubmit(engine, call.request(prompt), bool(handles), call.turns))
                await asyncio.sleep(0)  # A long list of prompts must not block the loop.
        yield handles
    finally:
        _cancel(handles)


async def _asubmit(engine: Engine, request: Request, wait: bool, turns: Turns | None) -> RequestHandle:
    if turns is None or wait:
        return await engine.asubmit(request, wait=wait)
    return await turns.queue(lambda wait: engine.asubmit(request, wait=wait))


def _cancel(handles: Sequence[RequestHandle]) -> None:
    # This has no effect on requests that have finished.
    for handle in handles:
        handle.cancel()


def _drafting(call: Call) -> Call:
    return replace(call, params=with_drafts(call.params, "draft_events=True")) if call.draft_events else call


def _events(handle: RequestHandle, call: Call) -> Iterator[BlockEvent | FinishedEvent]:
    for event in _all_events(handle, call):
        if not isinstance(event, DraftEvent):
            yield event


async def _aevents(handle: RequestHandle, call: Call) -> AsyncGenerator[BlockEvent | FinishedEvent]:
    async with aclosing(_all_aevents(handle, call)) as events:
        async for event in events:
            if not isinstance(event, DraftEvent):
                yield event


def _all_events(handle: RequestHandle, call: Call) -> Iterator[BlockEvent | DraftEvent | FinishedEvent]:
    for event in handle:
        if isinstance(event, DraftEvent) and call.on_draft is not None:
            call.on_draft(event)
        yield event


async def _all_aevents(handle: RequestHandle, call: Call) -> AsyncGenerator[BlockEvent | DraftEvent | FinishedEvent]:
    async for event in handle:
        if isinstance(event, DraftEvent) and call.on_draft is not None:
            outcome = call.on_draft(event)
            if inspect.isawaitable(outcome):
                await outcome
        yield event


def _last(events: Sequence[BlockEvent | FinishedEvent]) -> Generation:
    (end,) = (event for event in events if isinstance(event, FinishedEvent))
    return end.generation
