"""Adapters that put one shared DiffusionGemma engine behind LangChain and LlamaIndex.

Import the framework you use: ``dgemma_integrations.langchain`` or ``dgemma_integrations.llama_index``. Neither imports
the other's framework, and neither loads torch before the first request.
"""
