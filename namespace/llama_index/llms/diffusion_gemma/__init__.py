"""The import path LlamaIndex users expect: ``from llama_index.llms.diffusion_gemma import DiffusionGemma``.

Everything lives in ``dgemma_integrations.llama_index``; this only names it again. ``llama_index`` and
``llama_index.llms`` are namespace packages that several distributions share, so they have no ``__init__.py``.
"""

from dgemma_core import __version__
from dgemma_integrations.llama_index import DiffusionGemma, DiffusionGemmaRerank, DiffusionGemmaSelector

__all__ = ["DiffusionGemma", "DiffusionGemmaRerank", "DiffusionGemmaSelector", "__version__"]
