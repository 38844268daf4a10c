"""The packed walk equals the reference model on every branch alone, and takes its constants from the configuration."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import DynamicCache, PreTrainedTokenizerFast

from training.config import PRESETS
from training.data.lexicon import Source
from training.data.mixture import DEFAULT_MIX, draw_tree
from training.train import build_model
from training.tree import encode_branches, pack
from training.walk import Walk

pytestmark = pytest.mark.landing  # It trains a tokenizer and models.


def test_packed_tree_equals_separate_branches(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_model(PRESETS["tiny"], tokenizer, seed=0).eval()
    model.set_experts_implementation("eager")
    with torch.no_grad():
        for p in model.model.decoder.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.05)
    walk = Walk(model, torch.float32)
    source = Source(random.Random(5))
    trees = [encode_branches(tokenizer, draw_tree(source, DEFAULT_MIX, 0.2)) for _ in range(2)]
    batch = pack(trees, canvas_length=16, rng=source.rng, canvases=6)
    noised = torch.randint(0, len(tokenizer), batch.canvas.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        hidden, cache = walk.encode(batch)
        causal = walk.logits(hidden).view(*batch.tokens.shape, -1)
        first = walk.denoise(batch, noised, cache, None)
        soft, _, _ = walk.propose(first, torch.ones(first.shape[0], 1))
        packed = walk.logits(walk.denoise(batch, noised, cache, soft)).view(*noised.shape, -1)
        for row, tree in enumerate(trees):
            for number, item in enumerate(tree, 1):
                own = (batch.branch[row] == number).nonzero()[:, 0]
                ids = torch.tensor([item.prompt + item.target])
                out = model.model.encoder(input_ids=ids[:, :-1], past_key_values=DynamicCache(config=walk.text))
                raw = model.lm_head(out.last_hidden_state)[0]
                alone = walk.text.final_logit_softcapping * torch.tanh(raw / walk.text.final_logit_softcapping)
                torch.testing.assert_close(causal[row, own], alone[batch.position[row, own]], atol=1e-4, rtol=0)
            for slot in range(6):
                at = slice(slot * 16, slot * 16 + 16)
                item = tree[int(batch.canvas_branch[row, at][0]) - 1]
                start = int(batch.canvas_start[row, at][0])
                prefix = torch.tensor([(item.prompt + item.target)[:start]])
                past = DynamicCache(config=walk.text)
                model.model.encoder(input_ids=prefix, past_key_values=past)
                given = {"past_key_values": past, "decoder_input_ids": noised[row : row + 1, at]}
                logits = model(**given).logits
                logits = model(**given, self_conditioning_logits=logits).logits
                torch.testing.assert_close(packed[row, at], logits[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_constants_come_from_the_configuration(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_model(PRESETS["tiny"], tokenizer, seed=0).eval()
    hidden = 1000 * torch.randn(3, PRESETS["tiny"].hidden, generator=torch.Generator().manual_seed(0))
    for softcap in (30.0, 7.0):
        model.config.text_config.final_logit_softcapping = softcap
        assert float(Walk(model, torch.float32).logits(hidden).abs().max()) == pytest.approx(softcap)
    nothing = torch.zeros_like(hidden)
    usual = Walk(model, torch.float32).condition(hidden, nothing)
    model.config.text_config.rms_norm_eps = 3 * float(hidden.square().mean(-1).max())
    assert (Walk(model, torch.float32).condition(hidden, nothing).norm() <= 0.51 * usual.norm()).all()
    model.config.text_config.top_k_experts = 2
    with pytest.raises(ValueError, match="top_k_experts=2"):
        Walk(model, torch.float32)
