"""What a type checker knows of settings. ``make lint`` reads it; nothing runs it.

An error that no longer comes makes its ``type: ignore`` unused, which is an error too.
"""

from __future__ import annotations

from typing import assert_type

from dgemma_core.api import LoadSpec, SamplingParams
from dgemma_integrations.shared.fields import LoadFields, SamplingFields


class Model(LoadFields, SamplingFields):
    """A framework's model class."""


Model(max_tokens=3, temperature=0.5, model="embedded", stop=["."])
Model(tempature=1)  # type: ignore[call-arg]
Model(max_tokens="3")  # type: ignore[arg-type]
assert_type(Model().max_tokens, int | None)
assert_type(Model().max_queue, int)

SamplingParams(max_new_tokens=3, stop=(".",))
SamplingParams(max_new_token=3)  # type: ignore[call-arg]
SamplingParams(seed="3")  # type: ignore[arg-type]
assert_type(SamplingParams().entropy_bound, float | None)

LoadSpec(dtype="float16")
LoadSpec(dtype="float8")  # type: ignore[arg-type]
LoadSpec(devise="cpu")  # type: ignore[call-arg]
