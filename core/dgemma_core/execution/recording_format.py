"""The file format of recordings.

A file is a gzipped `safetensors <https://github.com/huggingface/safetensors>`_ file. All tensors of one dtype lie end
to end in one entry. The calls are JSON in the metadata. There ``{dtype: shape}`` stands for the next tensor of the
dtype's entry.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import fields, is_dataclass
from math import prod
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from dgemma_core.denoise.sampling_rule import SamplingRule
from dgemma_core.execution.backend import (
    CanvasResult,
    CanvasSegment,
    EncodeSegment,
    ImageInput,
    Logprobs,
    Predict,
    Prediction,
    PrefixCopy,
    Step,
    StepResult,
)
from dgemma_core.execution.backend_calls import (
    Call,
    Close,
    ForkPrefix,
    Open,
    ReadLabelLogits,
    ReadLogits,
    ReadPredictionLogits,
    Run,
)

_TYPES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Open, Close, ForkPrefix, Run, ReadLogits, ReadLabelLogits, ReadPredictionLogits),
        *(Step, EncodeSegment, Predict, SamplingRule, CanvasSegment, PrefixCopy, ImageInput),
        *(StepResult, CanvasResult, Prediction, Logprobs),
    )
}


def to_bytes(calls: tuple[Call, ...], weights: dict[str, Any]) -> bytes:
    """A file's content. The same calls give the same bytes.

    Args:
        calls: with tensors on the host.
        weights: JSON values.
    """
    writer = _Writer()
    about = {"weights": weights, "calls": [writer.plain(call) for call in calls]}
    content = save(writer.tensors(), {"recording": json.dumps(about, separators=(",", ":"))})
    return gzip.compress(content, mtime=0)


def from_bytes(packed: bytes) -> tuple[tuple[Call, ...], dict[str, Any]]:
    """Calls and weights of a file's content. Nothing in it is executed.

    Raises:
        Exception: of any kind, if the content is not a recording.
    """
    content = gzip.decompress(packed)
    # safetensors returns tensors only. A file begins with 8 bytes for the header's length, then the header in JSON.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = json.loads(header["__metadata__"]["recording"])
    reader = _Reader(load(content))
    return tuple(reader.value(call) for call in about["calls"]), about["weights"]


class _Writer:
    """Turns calls into JSON values, and gathers their tensors by dtype."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    def plain(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            dtype = str(value.dtype).removeprefix("torch.")
            self._parts.setdefault(dtype, []).append(value.flatten())
            return {dtype: list(value.shape)}
        if is_dataclass(value):
            return {type(value).__name__: {f.name: self.plain(getattr(value, f.name)) for f in fields(value)}}
        return [self.plain(item) for item in value] if isinstance(value, tuple) else value

    def tensors(self) -> dict[str, Tensor]:
        return {dtype: torch.cat(parts) for dtype, parts in self._parts.items()}


class _Reader:
    """Turns JSON values back into calls. It takes tensors in the order in which they were written."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self._read = dict.fromkeys(tensors, 0)

    def value(self, plain: Any) -> Any:
        if isinstance(plain, list):
            return tuple(self.value(item) for item in plain)
        if not isinstance(plain, dict):
            return plain
        ((name, content),) = plain.items()
        if name in _TYPES:
            return _TYPES[name](**{field: self.value(part) for field, part in content.items()})
        start = self._read[name]
        self._read[name] = start + prod(content)
        return self._tensors[name][start : self._read[name]].view(content)
