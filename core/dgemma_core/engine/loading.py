"""Loads the weights: description -> backend, with its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.protocol import Progress
from dgemma_core.checkpoint.weights import load_weights
from dgemma_core.engine.checkpoint_parts import CheckpointParts
from dgemma_core.engine.loop import Loaded
from dgemma_core.engine.threads import set_threads
from dgemma_core.engine.without_effect import tell_prefix_cache
from dgemma_core.errors import CheckpointError, DGemmaError, OutOfMemoryError, is_out_of_memory
from dgemma_core.execution.backend import Backend
from dgemma_core.execution.eager import EagerBackend

# Tokens in one forward pass: enough to fill the device, few enough to keep a step short.
_BATCH_TOKENS_CPU = 4096
_BATCH_TOKENS_ACCELERATOR = 16384


class Loader:
    """Makes the worker's backend. Holds no engine, so that the worker's thread keeps no engine alive.

    Args:
        spec: which weights, where and how.
        parts: of the same checkpoint.

    Attributes:
        progress: called with a line of text at every stage; forgotten after loading.
        make_backend: makes the backend of a loaded model. Tests put a recording backend here.
    """

    def __init__(self, spec: LoadSpec, parts: CheckpointParts) -> None:
        self._spec = spec
        self._parts = parts
        self._model: Any = None
        self.progress: Progress | None = None
        self.make_backend: Callable[[Any], Backend] = EagerBackend

    def __call__(self) -> Loaded:
        """Load the weights.

        Raises:
            CheckpointError: the checkpoint is missing or unusable.
            OutOfMemoryError: the weights do not fit into memory.
        """
        spec = self._spec
        try:
            return self._load()
        except DGemmaError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemoryError(
                    f"the weights of {spec.model!r} do not fit into memory: {error}. Load with quantization, a smaller "
                    "dtype, or on another device."
                ) from error
            raise CheckpointError(f"model={spec.model!r}, device={spec.device!r}: not loaded, {error!r}") from error
        finally:
            self.progress = None  # It may hold the engine, which the worker must not keep alive.

    def adopt(self, model: Any) -> None:
        """Use a model that is already in memory, instead of reading weights."""
        self._model = model

    def forget_model(self) -> None:
        """Let go of the model that :meth:`adopt` has taken."""
        self._model = None

    def _load(self) -> Loaded:
        spec, description = self._spec, self._parts.description
        # With a large vocabulary this takes a while, and the first prompt may come from an event loop.
        _ = self._parts.template
        began = time.monotonic()
        model = load_weights(spec, description, self.progress) if self._model is None else self._model
        backend = self.make_backend(model)
        set_threads(spec.threads, backend)
        tell_prefix_cache(spec, backend)
        budget = spec.max_batch_tokens or (_BATCH_TOKENS_CPU if backend.on_cpu else _BATCH_TOKENS_ACCELERATOR)
        return Loaded(
            backend=backend,
            prefix_cache_bytes=spec.prefix_cache_bytes,
            max_batch_tokens=budget,
            # Canvases shrink while they are denoised, so about twice as many share a step as fit in full length.
            max_running=max(1, 2 * budget // description.defaults.canvas_length),
            end_ids=description.end_ids,
            load_s=time.monotonic() - began,
        )
