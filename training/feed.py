"""Batches for the training loop, made in this process or in a worker process."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from .data.mixture import DEFAULT_MIX
from .tree import draw_batches
from .walk import Packed

GROWTH = 0.6  # the share of the budget over which contexts grow to full length


def read_mix(run: Path) -> dict[str, float]:
    """The task shares; `mix.json` in the run folder overrides them, and may change while the run goes on."""
    try:
        return {**DEFAULT_MIX, **json.loads((run / "mix.json").read_text(encoding="utf-8"))}
    except (FileNotFoundError, json.JSONDecodeError):
        return dict(DEFAULT_MIX)


def level_at(progress: float, first: float = 0.0) -> float:
    """Place in the curriculum (up to 1) at a share of the budget, for a run that began at `first`."""
    return min(1.0, first + (1.0 - first) * progress / GROWTH)


class Feed:
    """An endless stream of `(pool index, batch)`. Pools are seeded by their index, so a run can be resumed."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        run: Path,
        seed: str,
        pool: int,
        batch_tokens: int,
        trees: int,
        first_level: float = 0.0,
    ) -> None:
        self.tokenizer, self.run, self.seed, self.pool = tokenizer, run, seed, pool
        self.batch_tokens, self.trees, self.first_level = batch_tokens, trees, first_level
        self.progress = 0.0

    def __iter__(self) -> Iterator[tuple[int, Packed]]:
        while True:
            seed, level = f"{self.seed}-{self.pool}", level_at(self.progress, self.first_level)
            for batch in draw_batches(self.tokenizer, seed, read_mix(self.run), level, self.batch_tokens, self.trees):
                yield self.pool, batch
            self.pool += 1


def _produce(feed: Feed, queue: Any, progress: Any, core: int | None) -> None:
    import torch

    torch.set_num_threads(1)
    if core is not None:
        os.sched_setaffinity(0, {core})
    for pool, batch in feed:
        feed.progress = progress.value
        # Plain numpy travels without shared-memory handles.
        queue.put((pool, {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in vars(batch).items()}))


class WorkerFeed:
    """The same stream, made by one worker process (optionally on a core of its own)."""

    def __init__(self, feed: Feed, core: int | None) -> None:
        context = multiprocessing.get_context("fork")
        self.shared = context.Value("d", feed.progress)
        self.queue: Any = context.Queue(maxsize=12)
        self.worker = context.Process(target=_produce, args=(feed, self.queue, self.shared, core), daemon=True)
        self.worker.start()

    @property
    def progress(self) -> float:
        """Share of the budget that is used."""
        return float(self.shared.value)

    @progress.setter
    def progress(self, value: float) -> None:
        self.shared.value = value

    def __iter__(self) -> Iterator[tuple[int, Packed]]:
        import torch

        while True:
            pool, fields = self.queue.get()
            yield pool, Packed(**{k: v if k == "canvas_length" else torch.from_numpy(v) for k, v in fields.items()})
