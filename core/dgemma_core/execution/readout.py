"""Hidden states -> per-position argmax, sample, entropy and soft embedding, in chunks of rows.

The head GEMM, one pass of statistics and the soft-embedding GEMM all run while a chunk's logits are in the processor's
cache. The whole ``[canvas, vocabulary]`` matrix never exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_core.denoise.sampling import block_size, sample_in_blocks
from dgemma_core.execution.row_padding import pad_rows, row_multiple

_CPU_CHUNK_BYTES = 16 * 2**20
_DEVICE_CHUNK_BYTES = 512 * 2**20
# The logit of a banned token. An infinite one would make the entropy NaN.
_NEVER = -1e30


@dataclass(frozen=True)
class Ban:
    """Tokens with probability 0 in some rows.

    Attributes:
        tokens: int64 ``[n]``.
        rows: bool ``[rows]``.
    """

    tokens: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Statistics:
    """The result of one denoising step for each position.

    Attributes:
        argmax: int64 ``[rows]``, the likeliest token.
        sample: int64 ``[rows]``, a token drawn from the distribution.
        entropy: float32 ``[rows]``, nats.
        soft: ``[rows, hidden]``, the expected embedding, which is the next step's self-conditioning signal.
    """

    argmax: Tensor
    sample: Tensor
    entropy: Tensor
    soft: Tensor

    def on_host(self) -> tuple[Tensor, Tensor, Tensor]:
        """``argmax``, ``sample`` and ``entropy`` on the host, gathered in one copy."""
        if self.argmax.device.type == "cpu":
            return self.argmax, self.sample, self.entropy
        # The entropy's bits travel as an integer; token ids fit into 32 bits.
        rows = torch.stack((self.argmax.int(), self.sample.int(), self.entropy.view(torch.int32))).cpu()
        return rows[0].long(), rows[1].long(), rows[2].view(torch.float32)


class Readout:
    """The output head of a ``DiffusionGemmaForBlockDiffusion``.

    Args:
        model: the loaded model, in eval mode.
        chunk_bytes: size of one chunk's float32 logits; ``None`` picks one that stays in cache on a CPU.
    """

    def __init__(self, model: Any, chunk_bytes: int | None = None) -> None:
        self._head = model.lm_head
        embed = model.model.decoder.embed_tokens
        self._embedding: Tensor = embed.weight
        self._embed_scale: Tensor = embed.embed_scale.to(embed.weight.dtype)
        self._softcap = float(model.final_logit_softcapping)
        self.vocab_size: int = self._embedding.shape[0]
        if chunk_bytes is None:
            chunk_bytes = _CPU_CHUNK_BYTES if self._embedding.device.type == "cpu" else _DEVICE_CHUNK_BYTES
        self._multiple = row_multiple(self._embedding.device)
        self._chunk_rows = max(1, chunk_bytes // (4 * self.vocab_size * self._multiple)) * self._multiple
        self._block = block_size(self.vocab_size)
        # If 1 - p_max is below this, the embedding's dtype cannot tell the distribution from its likeliest token.
        self._point = torch.finfo(self._embedding.dtype).eps

    def logits(self, hidden: Tensor, temperature: Tensor) -> Tensor:
        """Processed logits: soft-capped, then divided by the temperature.

        Args:
            hidden: ``[rows, hidden]``, normed hidden states.
            temperature: float32 ``[rows]``.

        Returns:
            float32 ``[rows, vocab]``.
        """
        rows = hidden.shape[0]
        logits: Tensor = self._head(pad_rows(hidden, self._multiple))[:rows].float()
        logits.div_(self._softcap).tanh_()
        return logits.mul_((self._softcap / temperature).unsqueeze(-1))

    def causal_logits(self, hidden: Tensor) -> Tensor:
        """Soft-capped logits of the next tokens: ``[rows, hidden]`` -> float32 ``[rows, vocab]``."""
        return self.raw_logits(hidden).div_(self._softcap).tanh_().mul_(self._softcap)

    def raw_logits(self, hidden: Tensor) -> Tensor:
        """Logits without the soft cap, which does not change their order: float32 ``[rows, vocab]``."""
        rows = hidden.shape[0]
        logits: Tensor = self._head(pad_rows(hidden, self._multiple))[:rows].float()
        return logits

    def chunks(self, rows: int) -> Iterator[tuple[int, int]]:
        """Ranges ``[start, stop)`` of rows whose logits stay in the processor's cache."""
        for start in range(0, rows, self._chunk_rows):
            yield start, min(start + self._chunk_rows, rows)

    def label_logits(self, hidden: Tensor, labels: Sequence[Sequence[int]]) -> list[Tensor]:
        """Soft-capped logits of a few tokens per row. Only those tokens' rows of the output embedding are read.

        Args:
            hidden: ``[rows, hidden]``, normed hidden states.
            labels: token ids per row.

        Returns:
            Per row float32 ``[labels]`` on the host.
        """
        sizes = [len(ids) for ids in labels]
        device = hidden.device
        flat = torch.tensor([i for ids in labels for i in ids], device=device)
        row = torch.arange(len(hidden), device=device).repeat_interleave(torch.tensor(sizes, device=device))
        raw = (hidden[row].float() * self._embedding[flat].float()).sum(-1)
        return list((torch.tanh(raw / self._softcap) * self._softcap).cpu().split(sizes))

    def __call__(self, hidden: Tensor, temperature: Tensor, uniform: Tensor, bans: Sequence[Ban] = ()) -> Statistics:
        """Statistics of one denoising step.

        Args:
            hidden: ``[rows, hidden]``, normed hidden states.
            temperature: float32 ``[rows]`` on the device.
            uniform: float32 ``[rows]`` on the device, one draw per position.
            bans: tokens with probability 0, on the device.

        Returns:
            The statistics of all rows, on the device.
        """
        rows = hidden.shape[0]
        argmax = torch.empty(rows, dtype=torch.long, device=hidden.device)
        sample = torch.empty_like(argmax)
        entropy = torch.empty(rows, dtype=torch.float32, device=hidden.device)
        soft = torch.empty_like(hidden)
        for start, stop in self.chunks(rows):
            part = slice(start, stop)
            outputs = (argmax[part], sample[part], entropy[part], soft[part])
            banned = [Ban(ban.tokens, ban.rows[part]) for ban in bans]
            self._chunk(hidden[part], temperature[part], uniform[part], banned, *outputs)
        return Statistics(argmax, sample, entropy, soft)

    def _chunk(
        self,
        hidden: Tensor,
        temperature: Tensor,
        uniform: Tensor,
        bans: Sequence[Ban],
        argmax: Tensor,
        sample: Tensor,
        entropy: Tensor,
        soft: Tensor,
    ) -> None:
        logits = self.logits(hidden, temperature)
        for ban in bans:
            logits[:, ban.tokens] = logits[:, ban.tokens].masked_fill(ban.rows.unsqueeze(-1), _NEVER)
        torch.argmax(logits, dim=-1, out=argmax)
        logits -= logits.gather(-1, argmax.unsqueeze(-1))
        weights = logits.exp()
        blocks = weights.view(len(weights), -1, self._block)
        sums = blocks.sum(-1)
        total = sums.sum(-1)
        sample.copy_(sample_in_blocks(blocks, sums, uniform))
        # Entropy = log Z - E[logit]. A batched dot product needs no [rows, vocab] temporary.
        expected = torch.bmm(weights.unsqueeze(1), logits.unsqueeze(2)).flatten() / total
        torch.sub(total.log(), expected, out=entropy).clamp_(min=0.0)
        # The largest weight is exp(0) = 1, so total - 1 is the mass of all other tokens.
        spread = (total - 1.0 > self._point).nonzero().flatten()
        if len(spread) < len(weights):
            soft.copy_(F.embedding(argmax, self._embedding) * self._embed_scale)
            weights, total = weights[spread], total[spread]
        if len(spread):
            probabilities = weights.div_(total.unsqueeze(-1)).to(self._embedding.dtype)
            expected_embedding = torch.matmul(pad_rows(probabilities, self._multiple), self._embedding)
            soft[spread] = expected_embedding[: len(spread)] * self._embed_scale
