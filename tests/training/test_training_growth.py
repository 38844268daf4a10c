"""Starting from other weights: a deeper model with another tokenizer still does what its source did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from training.average import WEIGHTS, average
from training.config import PRESETS
from training.tokenizer import train_tokenizer
from training.train import FAINT, build_model, take_weights

pytestmark = pytest.mark.landing  # It trains a tokenizer and models.


def test_a_deeper_model_begins_like_its_source(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    four, six = (replace(PRESETS["tiny"], layers=layers) for layers in (4, 6))
    small = build_model(four, tokenizer, 0).eval()
    small.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    deep, untouched = build_model(six, tokenizer, 1).eval(), build_model(six, tokenizer, 1).eval()
    take_weights(deep, tokenizer, tmp_path)
    ids = torch.arange(30, 60)[None]
    with torch.no_grad():
        want, got, other = (m.model.encoder(input_ids=ids).last_hidden_state for m in (small, deep, untouched))
    assert (want - got).norm() < 0.4 * (want - other).norm()
    for new in (2, 3):
        norms = [m.model.decoder.layers[new].post_attention_layernorm.weight for m in (deep, small)]
        torch.testing.assert_close(norms[0], FAINT * norms[1])
    with pytest.raises(ValueError, match="7 layers cannot grow from 4"):
        take_weights(build_model(replace(six, layers=7), tokenizer, 1), tokenizer, tmp_path)


def test_shared_tokens_keep_their_embeddings(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    old, new = tokenizer, train_tokenizer(900, trees=80)
    small = build_model(PRESETS["tiny"], old, 0)
    small.save_pretrained(tmp_path)
    old.save_pretrained(tmp_path)
    model = build_model(PRESETS["tiny"], new, 1)
    take_weights(model, new, tmp_path)
    before, after = (m.model.decoder.embed_tokens.weight for m in (small, model))
    ids = new.get_vocab()
    shared = [(i, ids[token]) for token, i in old.get_vocab().items() if token in ids]
    assert len(shared) > 500
    torch.testing.assert_close(after[[j for _, j in shared]], before[[i for i, _ in shared]])


def test_weights_between_two_runs(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    for seed in (0, 1):
        build_model(PRESETS["tiny"], tokenizer, seed).save_pretrained(tmp_path / str(seed))
    average(tmp_path / "0", tmp_path / "1", 0.25, tmp_path / "mean")
    first, second, mean = (load_file(tmp_path / name / WEIGHTS) for name in ("0", "1", "mean"))
    for key, value in mean.items():
        torch.testing.assert_close(value, 0.75 * first[key] + 0.25 * second[key])
    assert (tmp_path / "mean" / "config.json").exists()
    with pytest.raises(ValueError, match=r"share=1\.5"):
        average(tmp_path / "0", tmp_path / "1", 1.5, tmp_path / "mean")
    build_model(replace(PRESETS["tiny"], layers=4), tokenizer, 0).save_pretrained(tmp_path / "deep")
    with pytest.raises(ValueError, match="same preset"):
        average(tmp_path / "0", tmp_path / "deep", 0.5, tmp_path / "mean")
