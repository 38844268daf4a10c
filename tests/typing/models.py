"""What a type checker knows of the models' keyword arguments. ``make lint`` reads it; nothing runs it.

An error that no longer comes makes its ``type: ignore`` unused, which is an error too.
"""

from __future__ import annotations

from typing import assert_type

from dgemma_core import Engine as LocalEngine
from dgemma_core.api import Engine, LoadSpec
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaLLM
from dgemma_integrations.llama_index import DiffusionGemma

DiffusionGemma()
DiffusionGemma(temperature=1, max_queue=3, stop=["."], drafts=True, thinking=True, system_prompt="Be brief.")
DiffusionGemma(engine=LocalEngine(LoadSpec()), stop=".")
DiffusionGemma(tempature=1)  # type: ignore[call-arg]
DiffusionGemma(max_tokens="3")  # type: ignore[arg-type]
DiffusionGemma(engine="embedded")  # type: ignore[arg-type]
DiffusionGemma(given_engine=None)  # type: ignore[call-arg]
assert_type(DiffusionGemma().engine, Engine)
assert_type(DiffusionGemma().max_tokens, int | None)

ChatDiffusionGemma()
ChatDiffusionGemma(temperature=1, max_queue=3, stop=["."], thinking=True, cache=True)
ChatDiffusionGemma(engine=LocalEngine(LoadSpec()), stop=".")
ChatDiffusionGemma(tempature=1)  # type: ignore[call-arg]
ChatDiffusionGemma(max_tokens="3")  # type: ignore[arg-type]
ChatDiffusionGemma(engine="embedded")  # type: ignore[arg-type]
assert_type(ChatDiffusionGemma().engine, Engine | None)

DiffusionGemmaLLM(temperature=1, raw=True)
DiffusionGemmaLLM(tempature=1)  # type: ignore[call-arg]
