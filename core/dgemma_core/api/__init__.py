"""Values, errors and the engine's interface, for adapters, servers and clients. Imports no torch."""

from dgemma_core.api import aside  # noqa: F401 -- first, because it imports asyncio with care
from dgemma_core.api.calibration import Calibration, fit_calibration
from dgemma_core.api.error_form import error_from_dict
from dgemma_core.api.events import (
    BlockEvent,
    DraftEvent,
    Event,
    FinishedEvent,
    FinishReason,
    Generation,
    TokenLogprob,
    event_from_dict,
)
from dgemma_core.api.grammar import Grammar
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.images import Image
from dgemma_core.api.infilling import Hole, Infilled
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.messages import Message, ToolCall
from dgemma_core.api.protocol import Engine, EngineFacts, Progress
from dgemma_core.api.questions import Answer, Question
from dgemma_core.api.request import Prompt, Request, Tools
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.api.usage import EngineStats, Usage

__all__ = [
    "Answer",
    "BlockEvent",
    "Calibration",
    "DraftEvent",
    "Engine",
    "EngineFacts",
    "EngineStats",
    "Event",
    "FinishReason",
    "FinishedEvent",
    "Generation",
    "Grammar",
    "Hole",
    "Image",
    "Infilled",
    "LoadSpec",
    "Message",
    "Progress",
    "Prompt",
    "Question",
    "Request",
    "RequestHandle",
    "SamplingParams",
    "TokenLogprob",
    "ToolCall",
    "Tools",
    "Usage",
    "error_from_dict",
    "event_from_dict",
    "fit_calibration",
]
