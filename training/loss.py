"""The training objective of one packed batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .data.example import TASKS
from .walk import PAD, STEP, Packed, Walk, canvas_mask

PAD_WEIGHT = 0.2
CAUSAL_WEIGHT = 0.5
BALANCE_WEIGHT = 0.002
CONDITIONED = 0.7  # share of the steps in which a first pass conditions the second
OWN_CANVAS = 0.67  # share of their canvases that hold what the first pass would settle
HOLES = 0.9  # share of the canvases with holes in which only the holes are noised, as in decisions and infilling
FIRST_READ = 0.7  # share of those that are read in the first step, without conditioning
SPAN = 0.1  # share of the other canvases in which only one span is noised
SLIPPED = 0.15  # share of the other canvases in which tokens stand too early or too late
LOCAL = 12  # most tokens of a slip that ends again
DEPTH = 4  # random tokens before a token that halve its weight
LEAST, GIVEN = 0.15, 0.3  # weight of a token after very many random ones, and of one that is right already

WATCHED = ("read", "front")


@dataclass
class Losses:
    """`total` is trained, the others are for the log. Task sums and counts are [len(TASKS)].

    `watched` has sums and counts of two losses: `read` is that of decisions' labels where only labels are noised,
    `front` is that of the first wrong token of each other canvas.
    """

    total: Tensor
    causal: float
    diffusion: float
    task_sum: Tensor
    task_count: Tensor
    watched: dict[str, tuple[float, int]] = field(default_factory=dict)


def noise_rates(target: Tensor, hole: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """How likely each position is to be noised.

    Args:
        target: token ids [M, C].
        hole: bool [M, C].
        generator: source of the random draws.

    Returns:
        Rates [M, C], and bool [M, 1], the canvases in which exactly the holes are noised.

    Half of the canvases have one rate for all positions; now and then it is 1, as in the first denoising step. The
    other half have a front, as a canvas has while it is denoised: positions before the front are settled, positions
    after it are not, and the padding after the end is often settled early.
    """
    count, length = target.shape
    flat = torch.rand(count, 1, generator=generator)
    flat = torch.where(torch.rand(count, 1, generator=generator) < 0.1, torch.ones_like(flat), flat)
    used = (target != PAD).sum(1, keepdim=True).float()
    front = torch.rand(count, 1, generator=generator) * (used + 2) - 2
    width = 4 * torch.rand(count, 1, generator=generator).square() + 0.05
    place = torch.arange(length).float()[None]
    slope = torch.sigmoid((place - front) / width)
    settled = (place >= used) & (torch.rand(count, 1, generator=generator) < 0.5)
    slope = torch.where(settled, torch.zeros_like(slope), slope)
    rates = torch.where(torch.rand(count, 1, generator=generator) < 0.5, flat.expand(count, length), slope)
    begin = torch.floor(torch.rand(count, 1, generator=generator) * used)
    span = (place >= begin) & (place < begin + 1 + torch.randint(20, (count, 1), generator=generator))
    rates = torch.where(torch.rand(count, 1, generator=generator) < SPAN, span.float(), rates)
    exact = hole.any(1, keepdim=True) & (torch.rand(count, 1, generator=generator) < HOLES)
    return torch.where(exact, hole.float(), rates), exact


@dataclass(frozen=True)
class Noised:
    """Canvases before a denoising step, [B, D] each.

    Attributes:
        tokens: token ids: right ones, random ones, and settled ones that are wrong.
        random: bool, which tokens are random.
        exact: bool, whether exactly the holes of the canvas are noised.
    """

    tokens: Tensor
    random: Tensor
    exact: Tensor


def add_noise(batch: Packed, vocabulary: int, generator: torch.Generator) -> Noised:
    """Replaces canvas tokens by uniformly random ones, or moves them by a position or two."""
    target, hole = (t.cpu().view(-1, batch.canvas_length) for t in (batch.canvas, batch.canvas_hole))
    rates, exact = noise_rates(target, hole, generator)
    hit = torch.rand(target.shape, generator=generator) < rates
    random_tokens = torch.randint(0, vocabulary, target.shape, generator=generator)
    chosen = ~exact & (torch.rand(exact.shape, generator=generator) < SLIPPED)
    hit &= ~(chosen & (torch.rand(exact.shape, generator=generator) < 0.5))
    noised = torch.where(hit, random_tokens, target)
    source = torch.where(chosen, slips(target, generator), torch.arange(target.shape[1]))
    made = (noised.gather(1, source), hit.gather(1, source), exact.expand(target.shape))
    return Noised(*(part.reshape(batch.canvas.shape).to(batch.canvas.device) for part in made))


def slips(target: Tensor, generator: torch.Generator) -> Tensor:
    """Positions to take the tokens of canvases [M, C] from, so that a part of them stands too early or too late.

    The part begins anywhere, is off by one or two positions, and ends again after a while or goes to the end. This is
    how a canvas goes wrong for good: its parts settle before the number of tokens between them is known, and then a
    token is missing or repeated. A network that only ever sees right or random tokens never learns to move one.
    """
    count, length = target.shape
    used = (target != PAD).sum(1, keepdim=True)
    begin = (torch.rand(count, 1, generator=generator) * used).long()
    end = begin + 1 + torch.randint(LOCAL, (count, 1), generator=generator)
    end = torch.where(torch.rand(count, 1, generator=generator) < 0.5, end, torch.full_like(end, length))
    by = torch.tensor([-2, -1, -1, 1, 1, 2])[torch.randint(6, (count, 1), generator=generator)]
    place = torch.arange(length)[None].expand(count, length)
    moved = (place + by).clamp(0, length - 1)
    return torch.where((place >= begin) & (place < end), moved, place)


def next_canvas(
    batch: Packed,
    noised: Noised,
    once: Tensor,
    guess: Tensor,
    entropy: Tensor,
    vocabulary: int,
    generator: torch.Generator,
) -> Noised:
    """The canvas of the next denoising step: sure guesses are settled, right or wrong, the rest is noise -> [B, D].

    This teaches the model to mend its own mistakes; with clean tokens alone it would trust every settled one. A third
    of the canvases stay as they were, and so do those marked by `once`, bool [B, D]. `guess` and `entropy` (nats) are
    [B * D].
    """
    rows, width = noised.tokens.shape
    slots, device = width // batch.canvas_length, noised.tokens.device
    bound = 10 ** (-2.5 + 2.2 * torch.rand(rows, slots, 1, generator=generator))
    chosen = (torch.rand(rows, slots, 1, generator=generator) < OWN_CANVAS).to(device)
    random_tokens = torch.randint(0, vocabulary, (rows, width), generator=generator).to(device)
    shape = (rows, slots, batch.canvas_length)
    chosen = chosen & ~once.view(shape)
    sure = entropy.view(shape) < bound.to(device)
    own = torch.where(sure, guess.view(shape), random_tokens.view(shape))
    tokens = torch.where(chosen, own, noised.tokens.view(shape)).view(rows, width)
    random = torch.where(chosen, ~sure, noised.random.view(shape)).view(rows, width)
    return replace(noised, tokens=tokens, random=random)


def count_before(marked: Tensor, canvas_length: int) -> Tensor:
    """For each position of canvases [B, D], how many marked positions come before it in its canvas."""
    counts = marked.view(-1, canvas_length).int()
    return (counts.cumsum(1) - counts).view(marked.shape)


def depth_weights(wrong: Tensor, before: Tensor) -> Tensor:
    """Weights of tokens by the number of random ones before them, for tensors of any shape.

    A token deep in noise cannot be known yet and will be asked again; the tokens at the front of the noise are those
    that the next denoising step settles. Settled tokens that are wrong do not count: what comes after them can be
    known. The likelihood bound of masked diffusion weighs whole canvases in the same way, by the inverse of their
    share of noise (https://arxiv.org/abs/2406.07524).
    """
    deep = (1 / (1 + before / DEPTH)).clamp(min=LEAST)
    return torch.where(wrong, deep, torch.full_like(deep, GIVEN))


def causal_loss(walk: Walk, batch: Packed, hidden: Tensor) -> Tensor:
    """Weighted next-token cross-entropy of the encoder's normed hidden states [B * L, H]."""
    labels = batch.labels.reshape(-1)
    labelled = (labels != -100).nonzero()[:, 0]
    count = labelled.shape[0]
    labelled = F.pad(labelled, (0, -count % STEP))  # few shapes; the surplus is cut off again
    told = batch.label_weight.reshape(-1)[labelled[:count]]
    each = walk.losses(hidden[labelled], labels[labelled].clamp(min=0))[:count]
    return (each * told).sum() / told.sum().clamp(min=1.0)  # A batch may have blanks only.


def compute_losses(walk: Walk, batch: Packed, generator: torch.Generator) -> Losses:
    """Diffusion cross-entropy on all canvas positions, plus the causal loss on the answers.

    A batch without canvases has the causal loss alone, at full weight.
    """
    if not batch.canvas.numel():
        hidden, _ = walk.encode(batch)
        causal = causal_loss(walk, batch, hidden)
        none = torch.zeros(len(TASKS))
        return Losses(causal + BALANCE_WEIGHT * walk.balance, float(causal.detach()), 0.0, none, none)
    vocabulary = walk.text.vocab_size
    noised = add_noise(batch, vocabulary, generator)
    condition = bool(torch.rand((), generator=generator) < CONDITIONED)
    defaults = walk.model.generation_config
    share = torch.rand(batch.canvas.shape[0], 1, generator=generator)
    temperature = defaults.t_min + (defaults.t_max - defaults.t_min) * share
    hidden, cache = walk.encode(batch)
    masks = walk.attention_masks(canvas_mask, batch)
    soft = None
    if condition:
        with torch.no_grad():
            first = walk.denoise(batch, noised.tokens, cache, None, masks)
            per_token = temperature.to(first.device).expand(batch.canvas.shape).reshape(-1, 1)
            soft, guess, entropy = walk.propose(first, per_token)
            # Canvases that are read in the first step stay as they are, with nothing to condition on.
            once = torch.rand(batch.canvas[:, :: batch.canvas_length].shape, generator=generator) < FIRST_READ
            once = noised.exact & once.to(noised.exact.device).repeat_interleave(batch.canvas_length, 1)
            soft = soft.masked_fill(once.view(-1, 1), 0.0)
            noised = next_canvas(batch, noised, once, guess, entropy, vocabulary, generator)
    causal = causal_loss(walk, batch, hidden)
    hidden = walk.denoise(batch, noised.tokens, cache, soft, masks)
    target, exact = batch.canvas.reshape(-1), noised.exact.reshape(-1)
    each = walk.losses(hidden, target)
    padding = (target == PAD) & ~batch.canvas_hole.reshape(-1)
    weight = torch.where(padding, PAD_WEIGHT, batch.canvas_weight.reshape(-1)) * (batch.canvas_branch.reshape(-1) >= 0)
    wrong = noised.tokens != batch.canvas
    first = (wrong & (count_before(wrong, batch.canvas_length) == 0)).reshape(-1)
    depth = depth_weights(wrong, count_before(noised.random, batch.canvas_length)).reshape(-1)
    weight = torch.where(exact, weight, weight * depth)
    diffusion = (each * weight).sum() / weight.sum()
    with torch.no_grad():
        text = (target != PAD).float()
        task = batch.canvas_task.reshape(-1)
        task_sum = torch.bincount(task, each * text, minlength=len(TASKS)).cpu()
        task_count = torch.bincount(task, text, minlength=len(TASKS)).cpu()
        watched = {
            "read": exact & batch.canvas_hole.reshape(-1) & (task == TASKS.index("decisions")),
            "front": first & (target != PAD) & ~exact,
        }
    total = diffusion + CAUSAL_WEIGHT * causal + BALANCE_WEIGHT * walk.balance
    return Losses(
        total,
        float(causal.detach()),
        float(diffusion.detach()),
        task_sum,
        task_count,
        {name: (float(each.detach()[which].sum()), int(which.sum())) for name, which in watched.items()},
    )
