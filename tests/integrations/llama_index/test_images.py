"""Image blocks of LlamaIndex's messages."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.schema import ImageDocument

from dgemma_core import Engine, Image, Message
from dgemma_core.errors import DGemmaError
from dgemma_integrations.llama_index import DiffusionGemma
from dgemma_integrations.llama_index.messages import ato_engine_messages, to_engine_messages


@pytest.fixture(scope="module")
def image(png: bytes) -> Image:
    return Image.from_bytes(png)


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_every_source_in_every_message(role: Any, png: bytes, image: Image, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png)
    data = base64.b64encode(png)
    blocks = [
        ImageBlock(image=png),
        ImageBlock(image=data),
        ImageBlock(image=BytesIO(png)),
        ImageBlock(path=path),
        ImageBlock(url=f"data:image/png;base64,{data.decode()}"),
    ]
    for block in blocks:
        chat = [ChatMessage(role=role, blocks=[TextBlock(text="a"), TextBlock(text="b"), block, TextBlock(text="c")])]
        assert to_engine_messages(chat) == [Message(role, ("a\nb", image, "c"))]
        assert to_engine_messages(chat) == [Message(role, ("a\nb", image, "c"))], "reading an image leaves it as it was"


def test_the_old_way_of_giving_images(png: bytes, image: Image) -> None:
    document = ImageDocument(image=base64.b64encode(png).decode())
    message = ChatMessage(role="user", content="look", additional_kwargs={"images": [document]})
    assert to_engine_messages([message]) == [Message("user", ("look", image))]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (ImageBlock(image=b"\x89PNG\r\n\x1a\n"), "none of PNG, JPEG|damaged or incomplete"),
        (ImageBlock(), "is empty: give it image=, path= or url="),
        (ImageBlock(url="https://host/a.png"), "allow_image_urls=True"),
        (ImageBlock(url="file:///etc/passwd"), "must be a data: URI"),
    ],
)
def test_what_cannot_be_read_is_refused(block: ImageBlock, words: str) -> None:
    """Never with a ``ValueError``, which response synthesizers swallow."""
    with pytest.raises(DGemmaError, match=f"ImageBlock in a user message.*({words})"):
        to_engine_messages([ChatMessage(role="user", blocks=[TextBlock(text="look"), block])])


async def test_addresses_are_downloaded_where_allowed(site: str, image: Image, embedded_engine: Engine) -> None:
    chat = [ChatMessage(role="user", blocks=[ImageBlock(url=f"{site}/ok.png")])]
    assert to_engine_messages(chat, allow_image_urls=True) == [Message("user", [image])]
    assert await ato_engine_messages(chat, allow_image_urls=True) == [Message("user", [image])]
    settings: dict[str, Any] = {"engine": embedded_engine, "max_tokens": 8, "max_denoising_steps": 2}
    with pytest.raises(DGemmaError, match="allow_image_urls=True"):
        DiffusionGemma(**settings).chat(chat)
    with pytest.raises(DGemmaError, match="allow_image_urls=True"):
        await DiffusionGemma(**settings).achat(chat)
    allowed = DiffusionGemma(**settings, allow_image_urls=True, seed=1)
    assert allowed.chat(chat).message.content == (await allowed.achat(chat)).message.content


async def test_every_chat_endpoint_takes_images(quick_llm: DiffusionGemma, png: bytes, embedded_engine: Engine) -> None:
    chat = [ChatMessage(role="user", blocks=[TextBlock(text="What is this?"), ImageBlock(image=png)])]
    answer = quick_llm.chat(chat)
    assert answer.raw["usage"]["prompt_tokens"] == embedded_engine.count_tokens(to_engine_messages(chat)) > 250
    texts = [
        (await quick_llm.achat(chat)).message.content,
        list(quick_llm.stream_chat(chat))[-1].message.content,
        [chunk async for chunk in await quick_llm.astream_chat(chat)][-1].message.content,
    ]
    assert texts == [answer.message.content] * 3
