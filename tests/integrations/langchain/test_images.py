"""Image blocks in all forms LangChain's messages have."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from dgemma_core import Image, Message
from dgemma_integrations.langchain import ChatDiffusionGemma
from dgemma_integrations.langchain import messages as messages_module
from dgemma_integrations.langchain.messages import ato_engine_messages, to_engine_messages
from dgemma_integrations.shared.images import Fetch


@pytest.fixture(scope="module")
def image(png: bytes) -> Image:
    return Image.from_bytes(png)


def blocks_of(png: bytes) -> dict[str, dict[str, Any]]:
    data = base64.b64encode(png).decode()
    uri = f"data:image/png;base64,{data}"
    return {
        "standard": {"type": "image", "base64": data, "mime_type": "image/png"},
        "standard with an address": {"type": "image", "url": uri},
        "old standard": {"type": "image", "source_type": "base64", "data": data, "mime_type": "image/png"},
        "OpenAI chat": {"type": "image_url", "image_url": {"url": uri, "detail": "low"}},
        "OpenAI chat, short": {"type": "image_url", "image_url": uri},
        "OpenAI responses": {"type": "input_image", "image_url": uri},
        "Anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        "Anthropic with an address": {"type": "image", "source": {"type": "url", "url": uri}},
    }


@pytest.mark.parametrize("form", blocks_of(b""))
def test_every_form_in_every_message(form: str, png: bytes, image: Image) -> None:
    block = blocks_of(png)[form]
    content: list[str | dict[str, Any]] = [{"type": "text", "text": "see "}, block, " and say"]
    parts = ("see ", image, " and say")
    assert to_engine_messages(
        [
            SystemMessage(content),
            HumanMessage(content),
            AIMessage(content),
            ToolMessage(content, tool_call_id="c"),
            ToolMessage([block], tool_call_id="c", status="error"),
            HumanMessage([{"type": "tool_result", "tool_use_id": "c", "content": content}, block]),
        ]
    ) == [
        Message("system", parts),
        Message("user", parts),
        Message("assistant", parts),
        Message("tool", parts, tool_call_id="c"),
        Message("tool", ("Error: ", image), tool_call_id="c"),
        Message("tool", parts, tool_call_id="c"),
        Message("user", (image,)),
    ]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "image", "base64": "AA==", "mime_type": "image/png"}, "'image': the image's 1 bytes are none of"),
        ({"type": "image", "base64": "!"}, "not valid base64"),
        ({"type": "image", "file_id": "f1"}, r"without image data \(it has file_id, type\)"),
        ({"type": "image", "source": {"type": "file", "file_id": "f1"}}, "without image data"),
        ({"type": "image_url", "image_url": {"url": "https://host/a.png"}}, "allow_image_urls=True"),
        ({"type": "image", "url": "file:///etc/passwd"}, "must be a data: URI"),
        ({"type": "image_url", "image_url": "/etc/passwd"}, "must be a data: URI"),
    ],
)
def test_what_cannot_be_read_is_refused(block: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"HumanMessage has a content block of type.*{words}"):
        to_engine_messages([HumanMessage([block])])


async def test_addresses_are_downloaded_where_allowed(site: str, png: bytes, image: Image) -> None:
    messages = [HumanMessage([{"type": "image", "url": f"{site}/ok.png"}])]
    expected = [Message("user", [image])]
    assert to_engine_messages(messages, allow_image_urls=True) == expected
    assert await ato_engine_messages(messages, allow_image_urls=True) == expected
    with pytest.raises(ValueError, match="allow_image_urls"):
        await ato_engine_messages(messages)


async def test_the_event_loop_goes_on_while_images_are_downloaded(monkeypatch: pytest.MonkeyPatch, png: bytes) -> None:
    gone_on = threading.Event()

    def waiting(allowed: bool) -> Fetch:
        def fetch(url: str) -> bytes:
            assert gone_on.wait(20)
            return png

        return fetch

    monkeypatch.setattr(messages_module, "fetcher", waiting)
    task = asyncio.create_task(ato_engine_messages([HumanMessage([{"type": "image", "url": "https://host/a.png"}])]))
    await asyncio.sleep(0.01)
    gone_on.set()
    assert (await task)[0].images


def question(block: dict[str, Any]) -> list[BaseMessage]:
    return [HumanMessage([{"type": "text", "text": "What is this? "}, block])]


async def test_every_call_takes_images(chat: ChatDiffusionGemma, png: bytes) -> None:
    messages = question(blocks_of(png)["standard"])
    answer = chat.invoke(messages)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == chat.get_num_tokens_from_messages(messages) > 250
    assert answer.text == (await chat.ainvoke(messages)).text == "".join(c.text for c in chat.stream(messages))
    assert answer.text == "".join([c.text async for c in chat.astream(messages)])
    assert answer.text == chat.invoke(question(blocks_of(png)["Anthropic"])).text
    assert answer.text != chat.invoke("What is this? ").text


async def test_the_model_object_says_whether_addresses_are_downloaded(
    settings: dict[str, Any], site: str, served: Any, png: bytes
) -> None:
    messages = question({"type": "image_url", "image_url": {"url": f"{site}/moved.png"}})
    plain = ChatDiffusionGemma(**settings)
    for ask in (plain.invoke, lambda m: list(plain.stream(m)), plain.get_num_tokens_from_messages):
        with pytest.raises(ValueError, match="allow_image_urls=True"):
            ask(messages)
    with pytest.raises(ValueError, match="allow_image_urls=True"):
        await plain.ainvoke(messages)
    assert served.paths == []
    allowed = ChatDiffusionGemma(**settings, allow_image_urls=True)
    assert allowed.invoke(messages).text == (await allowed.ainvoke(messages)).text
    assert served.paths == ["/moved.png", "/ok.png"] * 2
