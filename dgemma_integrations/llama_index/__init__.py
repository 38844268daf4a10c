"""DiffusionGemma as a LlamaIndex LLM, and components that read its decisions: selector, reranker, evaluators.

Example:
    >>> from dgemma_integrations.llama_index import DiffusionGemma
    >>> llm = DiffusionGemma(max_tokens=64, seed=0)
    >>> print(llm.complete("Name a prime number."))  # doctest: +SKIP
"""

from dgemma_core.api.aside import import_aside
from dgemma_core.api.requirements import explained_imports

with explained_imports("llama-index"):
    import_aside("llama_index.core")

    from llama_index.core.llms.loading import RECOGNIZED_LLMS

    from dgemma_integrations.llama_index.evaluator import DiffusionGemmaEvaluator
    from dgemma_integrations.llama_index.evaluators import (
        DiffusionGemmaAnswerRelevancyEvaluator,
        DiffusionGemmaContextRelevancyEvaluator,
        DiffusionGemmaCorrectnessEvaluator,
        DiffusionGemmaFaithfulnessEvaluator,
        DiffusionGemmaRelevancyEvaluator,
    )
    from dgemma_integrations.llama_index.guideline_evaluator import DiffusionGemmaGuidelineEvaluator
    from dgemma_integrations.llama_index.llm import DiffusionGemma
    from dgemma_integrations.llama_index.rerank import RELEVANCE_LEVELS, DiffusionGemmaRerank
    from dgemma_integrations.llama_index.selector import DiffusionGemmaSelector

# Components that hold an LLM, like extractors, restore it from a dict by its class name.
RECOGNIZED_LLMS[DiffusionGemma.class_name()] = DiffusionGemma

__all__ = [
    "RELEVANCE_LEVELS",
    "DiffusionGemma",
    "DiffusionGemmaAnswerRelevancyEvaluator",
    "DiffusionGemmaContextRelevancyEvaluator",
    "DiffusionGemmaCorrectnessEvaluator",
    "DiffusionGemmaEvaluator",
    "DiffusionGemmaFaithfulnessEvaluator",
    "DiffusionGemmaGuidelineEvaluator",
    "DiffusionGemmaRelevancyEvaluator",
    "DiffusionGemmaRerank",
    "DiffusionGemmaSelector",
]
