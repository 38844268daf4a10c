"""Middleware for ``create_agent`` that decides in one denoising step: a router and a guard.

It needs the package ``langchain``. The rest of this integration does not.
"""

from __future__ import annotations

try:
    import langchain.agents.middleware  # noqa: F401 -- fails here, with a remedy, before the modules below need it
except ImportError as error:
    raise ImportError(
        "dgemma_integrations.langchain.middleware needs the package langchain: pip install 'langchain>=1,<2'"
    ) from error

from dgemma_integrations.langchain.middleware.guard import DiffusionGemmaGuard, GuardViolationError
from dgemma_integrations.langchain.middleware.router import DiffusionGemmaRouter, Route

__all__ = ["DiffusionGemmaGuard", "DiffusionGemmaRouter", "GuardViolationError", "Route"]
