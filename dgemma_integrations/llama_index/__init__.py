"""DiffusionGemma as a LlamaIndex LLM.

Example:
    >>> from dgemma_integrations.llama_index import DiffusionGemma
    >>> llm = DiffusionGemma(max_tokens=64, seed=0)
    >>> print(llm.complete("Name a prime number."))  # doctest: +SKIP
"""

from llama_index.core.llms.loading import RECOGNIZED_LLMS

from dgemma_integrations.llama_index.llm import DiffusionGemma

# Components that hold an LLM (extractors, for one) are restored from a dict by its class name.
RECOGNIZED_LLMS[DiffusionGemma.class_name()] = DiffusionGemma

__all__ = ["DiffusionGemma"]
