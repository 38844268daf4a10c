"""Makes the writer of a request that is answered in the causal mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from dgemma_core.api.sampling_params import Decoding, SamplingParams
from dgemma_core.checkpoint.description import CheckpointDescription
from dgemma_core.denoise.causal_guide import CausalGuide
from dgemma_core.denoise.causal_writer import CausalWriter
from dgemma_core.denoise.lookup import Lookup
from dgemma_core.denoise.sampling_rule import SamplingRule
from dgemma_core.denoise.sliding_canvas import SlidingCanvas

DraftSource = Literal["canvas", "lookup"]
EVERY_SOURCE: frozenset[DraftSource] = frozenset(get_args(DraftSource))
# Positions of the canvas that drafts. Longer ones gave no fewer passes, and positions are what a CPU pays for.
DRAFT_CANVAS = 16
# Tokens of a draft at most: what the canvas holds beside the token that is known already.
LONGEST_DRAFT = DRAFT_CANVAS - 1
# Of every step of the canvas that drafts.
_DRAFT_TEMPERATURE = 0.6


def make_writer(
    description: CheckpointDescription,
    decoding: Decoding,
    params: SamplingParams,
    prompt: Sequence[int],
    room: int,
    guide: CausalGuide | None = None,
    sources: frozenset[DraftSource] = EVERY_SOURCE,
) -> CausalWriter:
    """The writer of one answer.

    Args:
        description: of the checkpoint.
        decoding: "verified", or "typewriter" for a writer without drafts.
        params: of the request.
        prompt: token ids.
        room: tokens the answer may take.
        guide: keeps the text within a grammar.
        sources: what the drafts of verified decoding come from.
    """
    if decoding != "verified":
        sources = frozenset()
    lookup = canvas = None
    if "lookup" in sources:
        lookup = Lookup(len(prompt) + room)
        lookup.extend(prompt)
    if "canvas" in sources:
        canvas = SlidingCanvas(
            length=min(DRAFT_CANVAS, description.canvas_limit),
            vocab_size=description.vocab_size,
            entropy_bound=description.defaults.entropy_bound,
            temperature=_DRAFT_TEMPERATURE,
            # Noise decides how many passes a text takes, and not the text. So passes repeat without a seed, too.
            generator=_generator(0 if params.seed is None else params.seed),
        )
    return CausalWriter(
        room=room,
        end_ids=description.end_ids,
        rule=SamplingRule(params.temperature or 0.0, params.top_k, params.top_p, params.min_p),
        # A generator of its own, so that the canvas's noise does not change what is drawn.
        generator=_generator(params.seed),
        logprobs=params.top_logprobs if params.logprobs else None,
        canvas=canvas,
        lookup=lookup,
        most=LONGEST_DRAFT if sources else 0,
        guide=guide,
    )


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
