"""DiffusionGemma for LangChain.

Importing this module and making its objects load neither torch nor weights. The first request loads both.
"""

from dgemma_core.api.aside import import_aside
from dgemma_core.api.requirements import explained_imports

with explained_imports("langchain"):
    import_aside("langchain_core.language_models", "langchain_core.output_parsers", "langchain_core.tools")

    from dgemma_integrations.langchain.chat_models import ChatDiffusionGemma
    from dgemma_integrations.langchain.classifier import DiffusionGemmaClassifier
    from dgemma_integrations.langchain.errors import ContextOverflowError
    from dgemma_integrations.langchain.llms import DiffusionGemmaLLM

__all__ = ["ChatDiffusionGemma", "ContextOverflowError", "DiffusionGemmaClassifier", "DiffusionGemmaLLM"]
