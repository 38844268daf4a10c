"""Finding and loading a checkpoint: first its tokenizer and configuration, which are small, then its weights."""

from __future__ import annotations

import importlib.resources
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from dgemma_core.api.params import SamplingParams
from dgemma_core.api.spec import EMBEDDED, LoadSpec
from dgemma_core.denoise.canvas import DenoiseSettings
from dgemma_core.errors import CheckpointError, is_out_of_memory

MODEL_TYPE = "diffusion_gemma"
Progress = Callable[[str], None]

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "tokenizer*"]
_WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Above this many parameters float32 no longer fits ordinary machines; below, float32 is what the reference computes in.
_FLOAT32_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class FrontDoor:
    """What is needed to accept requests, without any weights.

    Attributes:
        tokenizer: the checkpoint's ``PreTrainedTokenizerFast``.
        config: its ``DiffusionGemmaConfig``.
        defaults: denoising settings from its generation config.
        max_new_tokens: its default answer length.
        end_ids: token ids that end an answer.
        folder: where the files lie; ``None`` for a model that was handed over.
    """

    tokenizer: Any
    config: Any
    defaults: DenoiseSettings
    max_new_tokens: int
    end_ids: frozenset[int]
    folder: Path | None

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding; noise is drawn from all of them."""
        return int(self.config.text_config.vocab_size)

    @property
    def canvas_limit(self) -> int:
        """Positions of the checkpoint's whole canvas."""
        return self.defaults.canvas_length

    @property
    def end_id(self) -> int:
        """The token a turn is ended with, where one has to be written."""
        own = self.tokenizer.eos_token_id
        return int(own) if own is not None else min(self.end_ids)

    @property
    def pad_id(self) -> int:
        """The token that fills up a canvas."""
        pad = self.config.text_config.pad_token_id
        return 0 if pad is None else int(pad)

    def context_window(self, limit: int | None) -> int:
        """Tokens of prompt plus answer: the checkpoint's, or ``limit`` if that is smaller."""
        own = int(self.config.text_config.max_position_embeddings)
        return own if limit is None else min(own, limit)

    def settings(self, params: SamplingParams) -> DenoiseSettings:
        """Fill in the checkpoint's defaults.

        Raises:
            ValueError: a value that only together with the defaults is wrong.
        """
        d = self.defaults
        settings = DenoiseSettings(
            canvas_length=_or(params.canvas_length, d.canvas_length),
            max_denoising_steps=_or(params.max_denoising_steps, d.max_denoising_steps),
            entropy_bound=_or(params.entropy_bound, d.entropy_bound),
            t_min=_or(params.t_min, d.t_min),
            t_max=_or(params.t_max, d.t_max),
            stability_threshold=_or(params.stability_threshold, d.stability_threshold),
            confidence_threshold=_or(params.confidence_threshold, d.confidence_threshold),
            stop_at_eos=params.stop_at_eos,
        )
        if settings.canvas_length > d.canvas_length:
            raise ValueError(
                f"canvas_length={settings.canvas_length}: this checkpoint was trained on canvases of at most "
                f"{d.canvas_length}"
            )
        if settings.t_max < settings.t_min:
            raise ValueError(
                f"t_max={settings.t_max} is below t_min={settings.t_min} (the checkpoint's default fills in what is "
                "not given); set both"
            )
        if settings.t_min <= 0:
            raise ValueError(
                f"t_min={settings.t_min}, the checkpoint's default: logits are divided by it; set e.g. 0.01"
            )
        return settings


def open_front_door(spec: LoadSpec) -> FrontDoor:
    """Read tokenizer and configuration.

    Raises:
        CheckpointError: nothing usable there; says what was looked for and what to do.
    """
    folder = _folder(spec, _SMALL_FILES)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} has no config.json: point `model` at a folder with a DiffusionGemma checkpoint"
        )
    # Imported late: transformers takes a second, and constructing an engine should not.
    from transformers import AutoConfig, PreTrainedTokenizerFast
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import DiffusionGemmaGenerationConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # A value of a wrong type is an error of another library's.
        raise CheckpointError(
            f"{folder}/config.json cannot be read as a {MODEL_TYPE!r} configuration: {error}"
        ) from error
    if config.model_type != MODEL_TYPE:
        raise CheckpointError(
            f"{spec.model!r} is a {config.model_type!r} checkpoint; this engine runs {MODEL_TYPE!r} checkpoints "
            "only, such as google/diffusiongemma-26B-A4B-it"
        )
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # The tokenizers library raises bare exceptions.
        raise CheckpointError(f"{folder} has no readable tokenizer.json: {error}") from error
    generation: Any = DiffusionGemmaGenerationConfig()
    if (folder / "generation_config.json").is_file():
        try:
            generation = DiffusionGemmaGenerationConfig.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise CheckpointError(f"{folder}/generation_config.json cannot be read: {error}") from error
    return front_door(tokenizer, config, generation, folder)


def front_door(tokenizer: Any, config: Any, generation: Any, folder: Path | None = None) -> FrontDoor:
    """A front door from objects already in memory."""
    if config.text_config.use_bidirectional_attention == "all":
        raise CheckpointError(
            "use_bidirectional_attention='all': an encoder that is not causal cannot reuse its keys and values"
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
    return FrontDoor(tokenizer, config, defaults, int(value("max_new_tokens")), frozenset(end_ids), folder)


def load_weights(spec: LoadSpec, front: FrontDoor, progress: Progress | None = None) -> Any:
    """Load the weights in eval mode onto the device.

    Args:
        spec: which and where.
        front: from :func:`open_front_door`.
        progress: called with a line of text at every stage.

    Returns:
        A ``DiffusionGemmaForBlockDiffusion``.

    Raises:
        CheckpointError: no safetensors, wrong shapes, or no such device. Where memory runs out, torch's own error.
    """
    report = progress or (lambda _line: None)
    folder = _folder(spec, _SMALL_FILES + _WEIGHT_FILES)
    _check_weight_files(folder)
    from transformers import DiffusionGemmaForBlockDiffusion

    device = pick_device(spec.device)
    dtype = pick_dtype(spec.dtype, device, front.config)
    options: dict[str, Any] = {}
    if spec.quantization is not None:
        options["quantization_config"] = _quantization(spec.quantization, device)
    if device.type != "cpu" and (spec.quantization is not None or _has_accelerate()):
        options["device_map"] = {"": device}
    report(f"loading {spec.model} as {str(dtype).removeprefix('torch.')} on {device}")
    began = time.monotonic()
    try:
        with _no_progress_bar(spec.model == EMBEDDED or progress is not None):
            # With output_loading_info it returns a pair, which its annotations do not say.
            read: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
            )
            model, info = read
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"the weights in {folder} could not be loaded: {error}") from error
    if info["missing_keys"]:
        # transformers would go on with random numbers in their place.
        missing = sorted(info["missing_keys"])
        raise CheckpointError(
            f"the weights in {folder} lack {len(missing)} tensors, such as {missing[0]!r}: download them anew"
        )
    model.eval()
    if "device_map" not in options:
        model.to(device)
    report(f"loaded in {time.monotonic() - began:.1f} s")
    return model


def pick_device(name: str) -> torch.device:
    """``auto`` is cuda, else mps, else cpu."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(
            f"device={name!r} is not a torch device: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise CheckpointError(f"device={name!r}: this machine or this torch build has none; use 'auto' or 'cpu'")
    return device


def pick_dtype(name: str, device: torch.device, config: Any) -> torch.dtype:
    """bfloat16 on accelerators that have it and for models too large for float32; float32 otherwise."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.bfloat16
    text = config.text_config
    width = (
        3 * text.hidden_size * (text.intermediate_size + (text.num_experts or 0) * (text.moe_intermediate_size or 0))
    )
    return torch.bfloat16 if width * text.num_hidden_layers > _FLOAT32_PARAMETERS else torch.float32


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _folder(spec: LoadSpec, patterns: list[str]) -> Path:
    if spec.model == EMBEDDED:
        return Path(str(importlib.resources.files("dgemma_core") / "embedded"))
    local = Path(spec.model).expanduser()
    if local.is_dir():
        return local
    if local.is_absolute() or spec.model.startswith((".", "~")) or spec.model.count("/") != 1:
        raise CheckpointError(
            f"model={spec.model!r}: no such folder, and not a Hub id of the form 'owner/name'. "
            "Give 'embedded', an existing folder, or e.g. 'google/diffusiongemma-26B-A4B-it'."
        )
    return _download(spec, patterns)


def _download(spec: LoadSpec, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    retrying = Retrying(
        retry=retry_if_exception_type((ConnectionError, TimeoutError)),
        stop=stop_after_attempt(4),
        wait=wait_exponential(multiplier=1, max=20),
        reraise=True,
    )
    try:
        return Path(retrying(snapshot_download, spec.model, revision=spec.revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
        raise CheckpointError(
            f"model={spec.model!r} is not a local folder, not in the Hugging Face cache, and the Hub cannot be "
            "reached. Check the network (or unset HF_HUB_OFFLINE), download it elsewhere and give its folder, or use "
            "model='embedded'."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"model={spec.model!r} (revision {spec.revision or 'main'}) could not be fetched from the Hub: {error}. "
            "Check the spelling, and `hf auth login` if the repository is gated."
        ) from error


def _check_weight_files(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} holds pickled weights only ({', '.join(pickles[:3])}); unpickling can run code, so only "
            "safetensors are loaded. Convert them with `model.save_pretrained(folder)` in an environment you trust."
        )
    raise CheckpointError(f"{folder} has a config.json but no weights: looked for *.safetensors")


def _quantization(name: str, device: torch.device) -> Any:
    if device.type != "cuda":
        raise CheckpointError(f"quantization={name!r} needs a CUDA device, not {device}; leave it out")
    try:
        import bitsandbytes  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError as error:
        raise CheckpointError(
            f"quantization={name!r} needs bitsandbytes: pip install bitsandbytes accelerate"
        ) from error
    from transformers import BitsAndBytesConfig

    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _has_accelerate() -> bool:
    import importlib.util

    return importlib.util.find_spec("accelerate") is not None


@contextmanager
def _no_progress_bar(quiet: bool) -> Iterator[None]:
    """Hide transformers' own shard bar where nobody waits for it, or the caller reports progress itself."""
    from transformers.utils import logging

    if not quiet:
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
