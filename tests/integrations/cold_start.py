"""A program that a user starts and interrupts with Ctrl-C in its first seconds. Tests run it as a process.

Its arguments: the way of its first call, ``again`` or ``once``, and the moments of the interrupts.

- A moment is the name of a module whose import has just begun, ``+`` and a number of modules since the start, or
  ``loading``.
- ``again`` catches each ``KeyboardInterrupt`` and calls again; ``once`` does not.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

ASK = "The Vexal bridge was built in 1931.\n\nWhen was the Vexal bridge built?"
RIGHT = "1931"


def langchain() -> str:
    from dgemma_integrations.langchain import ChatDiffusionGemma

    return ChatDiffusionGemma(seed=0, max_tokens=32).invoke(ASK).text


def batch() -> str:
    from dgemma_integrations.langchain import ChatDiffusionGemma

    return ChatDiffusionGemma(seed=0, max_tokens=32).batch([ASK, ASK])[1].text


def llama_index() -> str:
    from dgemma_integrations.llama_index import DiffusionGemma

    return DiffusionGemma(seed=0, max_tokens=32).complete(ASK).text


def rerank() -> str:
    # Before LlamaIndex's own, so that its import is not torn either.
    from dgemma_integrations.llama_index import DiffusionGemma, DiffusionGemmaRerank  # isort: skip
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in (ASK, "The fox is red.")]
    found = DiffusionGemmaRerank(llm=DiffusionGemma()).postprocess_nodes(nodes, query_str="When was the bridge built?")
    return f"{RIGHT} {len(found)}"


def engine() -> str:
    from dgemma_core import Engine, LoadSpec, Message, SamplingParams

    shared = Engine.shared(LoadSpec())
    return shared.generate([[Message("user", ASK)]], SamplingParams(seed=0, max_new_tokens=32))[0].text


def tokens() -> str:
    from dgemma_integrations.langchain import ChatDiffusionGemma

    return f"{RIGHT} {ChatDiffusionGemma().get_num_tokens(ASK)}"


def structured() -> str:
    from dgemma_integrations.langchain import ChatDiffusionGemma  # isort: skip
    from pydantic import BaseModel

    class Year(BaseModel):
        year: int

    answer: Any = ChatDiffusionGemma(seed=0, max_tokens=64).with_structured_output(Year).invoke(ASK)
    return f"{RIGHT} {isinstance(answer, Year)}"


WAYS: dict[str, Callable[[], str]] = {
    way.__name__: way for way in (langchain, batch, llama_index, rerank, engine, tokens, structured)
}


def reached(moment: str, first: int) -> bool:
    if moment == "loading":
        return any(thread.name == "dgemma-embedded" for thread in threading.enumerate())
    if moment.startswith("+"):
        return len(sys.modules) >= first + int(moment)
    return moment in sys.modules


def press(moments: list[str], inside: threading.Semaphore) -> None:
    first = len(sys.modules)
    for moment in moments:
        inside.acquire()
        while not reached(moment, first):
            time.sleep(0.0002)
        os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    way, mode, *moments = sys.argv[1:]
    inside = threading.Semaphore(0)
    threading.Thread(target=press, args=(moments, inside), daemon=True).start()
    interrupts = 0
    while True:
        try:
            inside.release()
            text = WAYS[way]()
            break
        except KeyboardInterrupt:
            if mode == "once":
                raise
            interrupts += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert RIGHT in text, text
    print("interrupts:", interrupts)


if __name__ == "__main__":
    main()
