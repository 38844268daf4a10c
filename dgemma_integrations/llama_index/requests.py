"""Sends the request of one LlamaIndex call to the engine. When the call ends, for any reason, its request ends too."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from dgemma_core.api.events import Generation
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.messages import Message
from dgemma_core.api.protocol import Engine
from dgemma_core.api.request import Request
from dgemma_core.errors import ContextOverflowError, DGemmaError
from dgemma_integrations.llama_index.responses import Response, StreamChunks
from dgemma_integrations.llama_index.settings import Call

Prompt = list[Message] | str
"""A chat, or a prompt that already has the chat template's markup."""


def generate(engine: Engine, prompt: Prompt, call: Call) -> Generation:
    """Answer a prompt."""
    handle = _submit(engine, prompt, call)
    try:
        return handle.result()
    finally:
        handle.cancel()  # Has an effect only if the wait was interrupted.


async def agenerate(engine: Engine, prompt: Prompt, call: Call) -> Generation:
    """:func:`generate` on an event loop."""
    return await (await _asubmit(engine, prompt, call))


def stream(engine: Engine, prompt: Prompt, call: Call, chunks: StreamChunks[Response]) -> Iterator[Response]:
    """The chunks of an answer. Closing or dropping the iterator cancels the request."""
    # Submitted here, not in the generator, so that the call raises errors and the request starts before next().
    handle = _submit(engine, prompt, call)
    stream = _chunks(handle, chunks)
    _cancel_with(stream, handle)
    return stream


async def astream(
    engine: Engine, prompt: Prompt, call: Call, chunks: StreamChunks[Response]
) -> AsyncIterator[Response]:
    """:func:`stream` on an event loop."""
    handle = await _asubmit(engine, prompt, call)
    stream = _achunks(handle, chunks)
    _cancel_with(stream, handle)
    return stream


def _submit(engine: Engine, prompt: Prompt, call: Call) -> RequestHandle:
    # Loaded before the clock of `timeout` starts.
    engine.load()
    _check_settings(engine, call)
    if isinstance(prompt, str):
        return engine.submit(_formatted(engine.encode_markup(prompt), call))
    request = call.request(prompt)
    try:
        return engine.submit(request)
    except ContextOverflowError as error:
        return engine.submit(_shortened(engine, request, error))


async def _asubmit(engine: Engine, prompt: Prompt, call: Call) -> RequestHandle:
    await engine.aload()
    _check_settings(engine, call)
    if isinstance(prompt, str):
        return await engine.asubmit(_formatted(await asyncio.to_thread(engine.encode_markup, prompt), call))
    request = call.request(prompt)
    try:
        return await engine.asubmit(request)
    except ContextOverflowError as error:
        return await engine.asubmit(await asyncio.to_thread(_shortened, engine, request, error))


def _check_settings(engine: Engine, call: Call) -> None:
    try:
        engine.check_settings(call.params)
    except ValueError as error:
        if not call.own:
            raise
        # The bad setting is the LLM's, and the call is probably LlamaIndex's own. Its synthesizers swallow ValueErrors.
        raise DGemmaError(f"{call.owner}: {error}") from error


def _formatted(ids: list[int], call: Call) -> Request:
    """A request for a prompt in which the template's markup is already written."""
    return Request(ids, call.params, timeout=call.timeout)


def _shortened(engine: Engine, request: Request, error: ContextOverflowError) -> Request:
    """The request with a shorter answer, if only the template's markup made it too long.

    LlamaIndex fills the whole context window without counting that markup.

    Raises:
        ContextOverflowError: the given error, if more than the markup is too long.
    """
    excess = error.prompt_tokens + error.max_new_tokens - error.context_window
    room = error.max_new_tokens - excess
    bare = [replace(message, content="x") for message in request.messages]
    if room < 1 or excess > engine.count_tokens(bare, request.tools, thinking=request.thinking):
        raise error
    return replace(request, params=replace(request.params, max_new_tokens=room))


def _chunks(handle: RequestHandle, chunks: StreamChunks[Response]) -> Iterator[Response]:
    try:
        for event in handle:
            chunk = chunks.chunk(event)
            if chunk is not None:
                yield chunk
    finally:
        handle.cancel()


async def _achunks(handle: RequestHandle, chunks: StreamChunks[Response]) -> AsyncIterator[Response]:
    try:
        async for event in handle:
            chunk = chunks.chunk(event)
            if chunk is not None:
                yield chunk
    finally:
        handle.cancel()


def _cancel_with(stream: object, handle: RequestHandle) -> None:
    """Cancel the request when the stream is dropped. The ``finally`` of a stream that never started does not run."""
    weakref.finalize(stream, handle.cancel).atexit = False
