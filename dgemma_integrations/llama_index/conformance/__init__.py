"""A conformance suite for LlamaIndex LLMs.

Inherit ``LLMConformance`` in a test module, name the class to test, and pytest collects the tests::

    from dgemma_integrations.llama_index.conformance import LLMConformance


    class TestMyLLM(LLMConformance):
        @property
        def llm_class(self):
            return MyLLM

        @property
        def llm_params(self):
            return {"temperature": 0, "max_tokens": 16}

A flag that is off skips the tests that depend on it, with the reason. The parts may also be inherited one by one. A
test's docstring begins with "Fails:" and says what goes wrong in an application when the test fails.

The modules of this package import only llama-index-core and pytest, so the folder can be copied into any project.
"""

from __future__ import annotations

from pathlib import Path

import pytest

# Registered before the imports, because pytest explains failed assertions only in modules that it knows.
pytest.register_assert_rewrite(*(f"{__name__}.{path.stem}" for path in Path(__file__).parent.glob("[a-z]*.py")))

from .base import ConformanceBase  # noqa: E402
from .concurrency import ConcurrencyTests  # noqa: E402
from .endpoints import EndpointTests  # noqa: E402
from .lifecycle import LifecycleTests  # noqa: E402
from .messages import MessageTests  # noqa: E402
from .streaming import StreamingTests  # noqa: E402
from .structured import StructuredTests  # noqa: E402
from .tools import ToolTests  # noqa: E402

__all__ = [
    "ConcurrencyTests",
    "ConformanceBase",
    "EndpointTests",
    "LLMConformance",
    "LifecycleTests",
    "MessageTests",
    "StreamingTests",
    "StructuredTests",
    "ToolTests",
]


class LLMConformance(
    EndpointTests,
    StreamingTests,
    MessageTests,
    ToolTests,
    StructuredTests,
    ConcurrencyTests,
    LifecycleTests,
):
    """All parts."""
