"""Checks of what an engine is made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dgemma_core.api.load_spec import EMBEDDED, LoadSpec
from dgemma_core.api.requirements import explained_imports
from dgemma_core.checkpoint.description import mismatch

_OPTIONS = ("max_context", "max_batch_tokens", "max_queue", "prefix_cache_bytes", "threads")


def checked_spec(spec: LoadSpec | None) -> LoadSpec:
    """The spec, or the default one.

    Raises:
        ValueError: something else than a spec.
    """
    if spec is not None and not isinstance(spec, LoadSpec):
        raise ValueError(f"spec={spec!r}: must be a LoadSpec, such as LoadSpec(model={EMBEDDED!r})")
    return spec or LoadSpec()


def check_given(model: Any, tokenizer: Any, options: Iterable[str]) -> None:
    """Check the arguments of ``Engine.from_model``.

    Raises:
        ValueError: model or tokenizer have another class or do not belong together, or an option is unknown.
    """
    with explained_imports():
        from transformers import DiffusionGemmaForBlockDiffusion, PreTrainedTokenizerFast

    if not isinstance(model, DiffusionGemmaForBlockDiffusion):
        raise ValueError(
            f"model={type(model).__name__}: must be a DiffusionGemmaForBlockDiffusion; for a name or a folder write "
            "Engine(LoadSpec(model=...))"
        )
    for name in options:
        if name not in _OPTIONS:
            raise ValueError(f"unknown option {name!r}: from_model takes {', '.join(_OPTIONS)}")
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"tokenizer={tokenizer!r}: must be a PreTrainedTokenizerFast, such as AutoTokenizer.from_pretrained(folder)"
        )
    if problem := mismatch(tokenizer, model.config):
        raise ValueError(problem)
