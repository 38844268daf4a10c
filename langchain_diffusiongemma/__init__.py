"""DiffusionGemma for LangChain, under the name LangChain's integrations go by.

The same classes as in ``dgemma_integrations.langchain``; importing them loads neither torch nor weights.
"""

from dgemma_core import __version__
from dgemma_integrations.langchain import ChatDiffusionGemma, DiffusionGemmaClassifier, DiffusionGemmaLLM

__all__ = ["ChatDiffusionGemma", "DiffusionGemmaClassifier", "DiffusionGemmaLLM", "__version__"]
