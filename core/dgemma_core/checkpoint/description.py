"""A checkpoint's tokenizer, configuration and default settings. Reads no weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.requirements import explained_imports
from dgemma_core.api.sampling_params import Decoding
from dgemma_core.checkpoint.files import checkpoint_folder
from dgemma_core.checkpoint.quantized import check_quantized
from dgemma_core.checkpoint.small_files import problem_of, without_config
from dgemma_core.denoise.denoise_settings import DenoiseSettings
from dgemma_core.errors import CheckpointError

MODEL_TYPE = "diffusion_gemma"
# In config.json, because transformers refuses a generation_config.json with keys of others.
DECODING_KEY = "dgemma_decoding"
GUIDED_DECODING_KEY = "dgemma_guided_decoding"
_AGAIN = "download the file again"


@dataclass(frozen=True)
class CheckpointDescription:
    """The parts of a checkpoint that are needed to accept requests. Holds no weights.

    Attributes:
        tokenizer: the checkpoint's ``PreTrainedTokenizerFast``.
        config: its ``DiffusionGemmaConfig``.
        defaults: denoising settings from its generation config.
        max_new_tokens: its default bound on the answer, in tokens.
        end_ids: token ids that end an answer.
        folder: the folder of its files; ``None`` for a model object that was given to ``Engine.from_model``.
        decoding: how its answers are written by default.
        guided_decoding: how those are written that a grammar or tools hold.
    """

    tokenizer: Any
    config: Any
    defaults: DenoiseSettings
    max_new_tokens: int
    end_ids: frozenset[int]
    folder: Path | None
    decoding: Decoding = "diffusion"
    guided_decoding: Decoding = "diffusion"

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding; noise is drawn from all of them."""
        return int(self.config.text_config.vocab_size)

    @property
    def canvas_limit(self) -> int:
        """Most positions of a canvas: the length the checkpoint was trained on."""
        return self.defaults.canvas_length

    @property
    def end_id(self) -> int:
        """The token that is written to end a turn."""
        own = self.tokenizer.eos_token_id
        return int(own) if own is not None else min(self.end_ids)

    @property
    def pad_id(self) -> int:
        """The token that fills up a canvas."""
        pad = self.config.text_config.pad_token_id
        return 0 if pad is None else int(pad)

    def context_window(self, limit: int | None) -> int:
        """Most tokens of prompt plus answer: the checkpoint's limit, or ``limit`` if that is smaller."""
        own = int(self.config.text_config.max_position_embeddings)
        return own if limit is None else min(own, limit)


def read_description(spec: LoadSpec) -> CheckpointDescription:
    """Read tokenizer and configuration.

    Raises:
        CheckpointError: the checkpoint is missing or unusable. The message says what was looked for and what to do.
    """
    folder = checkpoint_folder(spec)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json: {without_config(folder)}")
    _check_small_files(spec, folder)
    # Imported here, because transformers takes a second, and making an engine should not.
    with explained_imports():
        from transformers import DiffusionGemmaConfig, PreTrainedTokenizerFast
        from transformers.models.diffusion_gemma.generation_diffusion_gemma import DiffusionGemmaGenerationConfig

    try:
        config = DiffusionGemmaConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # For a value of a wrong type, other libraries raise their own errors.
        raise CheckpointError(
            f"{folder}/config.json cannot be read as a {MODEL_TYPE!r} configuration: {error}; {_AGAIN}"
        ) from error
    check_quantized(config, folder)
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # The tokenizers library raises bare exceptions.
        raise CheckpointError(f"{folder} has no readable tokenizer.json: {error}; {_AGAIN}") from error
    generation: Any = DiffusionGemmaGenerationConfig()
    if (folder / "generation_config.json").is_file():
        try:
            generation = DiffusionGemmaGenerationConfig.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise CheckpointError(f"{folder}/generation_config.json cannot be read: {error}; {_AGAIN}") from error
    return describe(tokenizer, config, generation, folder)


def _check_small_files(spec: LoadSpec, folder: Path) -> None:
    if problem := problem_of(folder / "config.json"):
        raise CheckpointError(f"{folder}/config.json cannot be read: {problem}")
    _check_model_type(spec, folder)
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer.json, the only form of a tokenizer that is read; download it from the "
            "checkpoint's page, or make it with `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
        )
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        if (folder / name).is_file() and (problem := problem_of(folder / name)):
            raise CheckpointError(f"{folder}/{name} cannot be read: {problem}")


def _check_model_type(spec: LoadSpec, folder: Path) -> None:
    """Refuse other models here, because transformers' own loader asks at the terminal whether to run their code."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = "it has no model_type" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"{folder}/config.json cannot be read as a {MODEL_TYPE!r} configuration: {reason}; {_AGAIN}"
        ) from error
    if kind != MODEL_TYPE:
        raise CheckpointError(
            f"{spec.model!r} is a {kind!r} checkpoint, so its config.json cannot be read; this engine runs "
            f"{MODEL_TYPE!r} checkpoints only, such as google/diffusiongemma-26B-A4B-it"
        )


def mismatch(tokenizer: Any, config: Any) -> str | None:
    """Why a tokenizer cannot belong to a model, with the remedy. None if it may."""
    if len(tokenizer) <= config.text_config.vocab_size:
        return None
    return (
        f"the tokenizer has {len(tokenizer)} tokens, but the model's vocabulary {config.text_config.vocab_size}: they "
        "belong to different checkpoints; use the tokenizer that came with the model"
    )


def describe(tokenizer: Any, config: Any, generation: Any, folder: Path | None = None) -> CheckpointDescription:
    """The description of a checkpoint that is already in memory.

    Args:
        tokenizer: a ``PreTrainedTokenizerFast``.
        config: a ``DiffusionGemmaConfig``.
        generation: a ``DiffusionGemmaGenerationConfig``.
        folder: the folder of its files, if there is one.

    Raises:
        CheckpointError: the encoder is not causal, or the tokenizer belongs to another model.
    """
    if problem := mismatch(tokenizer, config):
        raise CheckpointError(problem)
    if config.text_config.use_bidirectional_attention == "all":
        raise CheckpointError(
            "use_bidirectional_attention='all': keys and values of an encoder that is not causal cannot be reused; use "
            "a checkpoint with None or 'vision'"
        )
    unset = generation._get_default_generation_params()

    def value(name: str) -> Any:
        own = getattr(generation, name, None)
        return unset[name] if own is None else own

    defaults = DenoiseSettings(
        canvas_length=int(config.canvas_length),
        max_denoising_steps=int(value("max_denoising_steps")),
        entropy_bound=float(value("sampler_config").entropy_bound),
        t_min=float(value("t_min")),
        t_max=float(value("t_max")),
        stability_threshold=int(value("stability_threshold")),
        confidence_threshold=float(value("confidence_threshold")),
        stop_at_eos=True,
    )
    ends = [generation.eos_token_id, config.text_config.eos_token_id, tokenizer.eos_token_id]
    end_ids = {i for end in ends if end is not None for i in (end if isinstance(end, list | tuple) else [end])}
    decoding = _decoding(config, DECODING_KEY, "diffusion")
    return CheckpointDescription(
        tokenizer,
        config,
        defaults,
        int(value("max_new_tokens")),
        frozenset(end_ids),
        folder,
        decoding,
        _decoding(config, GUIDED_DECODING_KEY, decoding),
    )


def _decoding(config: Any, key: str, default: Decoding) -> Decoding:
    """The way of decoding that a checkpoint asks for under a key of its ``config.json``."""
    own = getattr(config, key, None)
    if own is None:
        return default
    if own not in get_args(Decoding):
        raise CheckpointError(f"config.json: {key}={own!r}: must be one of {', '.join(get_args(Decoding))}")
    return cast(Decoding, own)
