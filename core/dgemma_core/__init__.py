"""Block-diffusion text generation on the local machine: one engine, many requests batched step by step.

Importing this package is cheap. The first use of ``Engine`` imports torch and transformers. Ctrl-C does not tear that
import: it goes on, and the next use waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dgemma_core import errors
from dgemma_core.api.aside import call_aside
from dgemma_core.api.calibration import Calibration, fit_calibration
from dgemma_core.api.events import BlockEvent, DraftEvent, FinishedEvent, Generation
from dgemma_core.api.grammar import Grammar
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.images import Image
from dgemma_core.api.infilling import Hole, Infilled
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.messages import Message, ToolCall
from dgemma_core.api.questions import Answer, Question
from dgemma_core.api.request import Request
from dgemma_core.api.requirements import explained_imports
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.api.usage import EngineStats, Usage
from dgemma_core.api.version import __version__
from dgemma_core.errors import DGemmaError

if TYPE_CHECKING:
    from dgemma_core.engine.engine import Engine

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
    "Request",
    "RequestHandle",
    "SamplingParams",
    "ToolCall",
    "Usage",
    "__version__",
    "errors",
    "fit_calibration",
]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        return call_aside(_import_engine)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _import_engine() -> Any:
    with explained_imports():
        from dgemma_core.engine.engine import Engine

    return Engine
