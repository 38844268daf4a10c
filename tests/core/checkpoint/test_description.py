"""What a checkpoint says of itself, read without its weights and without running its code."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from transformers.models.diffusion_gemma.generation_diffusion_gemma import DiffusionGemmaGenerationConfig

from dgemma_core import LoadSpec
from dgemma_core.checkpoint.description import describe, read_description
from dgemma_core.errors import CheckpointError
from tests.checkpoints import make_model, make_tokenizer


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def test_defaults_are_the_checkpoints(model: Any, tokenizer: Any) -> None:
    description = describe(tokenizer, model.config, model.generation_config)
    defaults = description.defaults
    assert (defaults.canvas_length, defaults.max_denoising_steps, defaults.entropy_bound) == (16, 12, 0.1)
    assert (defaults.t_min, defaults.t_max) == (0.4, 0.8)
    assert (defaults.stability_threshold, defaults.confidence_threshold, defaults.stop_at_eos) == (1, 0.005, True)
    assert (description.max_new_tokens, description.canvas_limit, description.vocab_size) == (32, 16, 512)
    assert description.folder is None


def test_what_it_does_not_say_is_transformers_default(model: Any, tokenizer: Any) -> None:
    generation = DiffusionGemmaGenerationConfig()
    unset = generation._get_default_generation_params()
    description = describe(tokenizer, model.config, generation)
    assert description.defaults.max_denoising_steps == unset["max_denoising_steps"]
    assert description.defaults.t_max == unset["t_max"]
    assert description.max_new_tokens == unset["max_new_tokens"]


def test_end_tokens_are_everybodys(model: Any, tokenizer: Any) -> None:
    """Those of the generation config, of the configuration and of the tokenizer."""
    generation = deepcopy(model.generation_config)
    generation.eos_token_id = 7
    description = describe(tokenizer, model.config, generation)
    assert description.end_ids == {7, model.config.text_config.eos_token_id, tokenizer.eos_token_id}
    assert description.end_id == tokenizer.eos_token_id
    generation.eos_token_id = [7, 8]
    assert {7, 8} <= describe(tokenizer, model.config, generation).end_ids


def test_a_tokenizer_without_an_end_has_another_one(model: Any) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    description = describe(tokenizer, model.config, model.generation_config)
    assert description.end_id == min(description.end_ids) == 1


def test_padding_is_zero_where_nothing_is_said(model: Any, tokenizer: Any) -> None:
    config = deepcopy(model.config)
    assert describe(tokenizer, config, model.generation_config).pad_id == 0
    config.text_config.pad_token_id = 5
    assert describe(tokenizer, config, model.generation_config).pad_id == 5
    config.text_config.pad_token_id = None
    assert describe(tokenizer, config, model.generation_config).pad_id == 0


def test_a_limit_only_narrows_the_window(model: Any, tokenizer: Any) -> None:
    description = describe(tokenizer, model.config, model.generation_config)
    assert description.context_window(None) == 2048
    assert description.context_window(100) == 100
    assert description.context_window(10**6) == 2048


def test_an_encoder_that_is_not_causal_is_refused(model: Any, tokenizer: Any) -> None:
    config = deepcopy(model.config)
    config.text_config.use_bidirectional_attention = "all"
    with pytest.raises(CheckpointError, match="encoder that is not causal"):
        describe(tokenizer, config, model.generation_config)


def test_no_weights_are_read(tiny_checkpoint: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (folder / "model.safetensors").unlink()
    description = read_description(LoadSpec(model=str(folder)))
    assert (description.vocab_size, description.folder) == (512, folder)


def with_own_code(checkpoint: str, folder: Path, name: str, **changes: Any) -> tuple[Path, Path]:
    """A copy of the checkpoint whose file names classes in a file beside it, and what exists once that has run."""
    copy, ran = Path(shutil.copytree(checkpoint, folder / "copy")), folder / "ran"
    (copy / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: ...\n")
    settings = json.loads((copy / name).read_text())
    classes = {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    (copy / name).write_text(json.dumps(settings | {"auto_map": classes} | changes))
    return copy, ran


def test_a_configurations_own_code_is_never_run(tiny_checkpoint: str, tmp_path: Path) -> None:
    folder, ran = with_own_code(tiny_checkpoint, tmp_path, "config.json", model_type="own")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        read_description(LoadSpec(model=str(folder)))
    assert not ran.exists()


def test_a_tokenizers_own_code_is_never_run(tiny_checkpoint: str, tmp_path: Path) -> None:
    folder, ran = with_own_code(tiny_checkpoint, tmp_path, "tokenizer_config.json", tokenizer_class="Own")
    assert read_description(LoadSpec(model=str(folder))).vocab_size == 512
    assert not ran.exists()
