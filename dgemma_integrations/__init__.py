"""Adapters that give LangChain and LlamaIndex one shared DiffusionGemma engine.

Import the one you use: ``dgemma_integrations.langchain`` or ``dgemma_integrations.llama_index``. Neither imports the
other's framework. Neither loads torch before the first request.
"""
