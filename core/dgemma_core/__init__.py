"""Block-diffusion text generation on the local machine: one engine, many requests batched step by step.

Importing this package is cheap: torch and transformers come in when ``Engine`` is first touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dgemma_core import errors
from dgemma_core.errors import DGemmaError
from dgemma_core.events import BlockEvent, DraftEvent, FinishedEvent, Generation
from dgemma_core.images import Image
from dgemma_core.messages import Message, ToolCall
from dgemma_core.params import SamplingParams
from dgemma_core.spec import LoadSpec
from dgemma_core.structured.grammar import Grammar
from dgemma_core.structured.questions import Question
from dgemma_core.usage import EngineStats, Usage

if TYPE_CHECKING:
    from dgemma_core.engine import Engine
    from dgemma_core.handle import RequestHandle
    from dgemma_core.structured.calibration import Calibration, fit_calibration
    from dgemma_core.structured.decide import Answer
    from dgemma_core.structured.infill import Hole, Infilled

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "BlockEvent",
    "Calibration",
    "DGemmaError",
    "DraftEvent",
    "Engine",
    "EngineStats",
    "FinishedEvent",
    "Generation",
    "Grammar",
    "Hole",
    "Image",
    "Infilled",
    "LoadSpec",
    "Message",
    "Question",
    "RequestHandle",
    "SamplingParams",
    "ToolCall",
    "Usage",
    "errors",
    "fit_calibration",
]

_LAZY = {
    "Answer": "dgemma_core.structured.decide",
    "Calibration": "dgemma_core.structured.calibration",
    "Engine": "dgemma_core.engine",
    "Hole": "dgemma_core.structured.infill",
    "Infilled": "dgemma_core.structured.infill",
    "RequestHandle": "dgemma_core.handle",
    "fit_calibration": "dgemma_core.structured.calibration",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
