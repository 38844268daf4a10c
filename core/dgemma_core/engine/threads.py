"""Chooses how many threads a step uses on a CPU, by measuring one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from dgemma_core.execution.backend import Backend, EncodeSegment, Predict, Step

logger = logging.getLogger(__name__)

_TOKENS = 32  # About the positions of a pass of one request.
_ROUNDS = 5
_SLOW = 0.3  # Seconds. A step of a large model; more threads always help it.
_WORTH = 0.9  # More threads must take at most this share of the time, because other processes need cores, too.


def set_threads(wanted: int | str, backend: Backend) -> None:
    """Set the number of torch's threads for the calling thread, which runs all steps of the backend.

    Args:
        wanted: a number, or "auto" to measure a step with 1, 2, 4, ... threads, at most as many as torch would use.
        backend: on a CPU. On an accelerator nothing is set, and the log says so if a number is wanted.
    """
    if not backend.on_cpu:
        if isinstance(wanted, int):
            logger.warning("threads=%s: the steps run on an accelerator, so the number has no effect", wanted)
        return
    most = torch.get_num_threads()
    if isinstance(wanted, int):
        torch.set_num_threads(wanted)
    elif most > 1:
        with torch.inference_mode():
            chosen = fewest_threads(most, lambda threads: _seconds(backend, threads))
        torch.set_num_threads(chosen)
        logger.info("steps use %s of %s threads", chosen, most)


def fewest_threads(most: int, measure: Callable[[int], float]) -> int:
    """The smallest number of threads that more threads are hardly faster than.

    Args:
        most: largest number.
        measure: seconds of a step with so many threads.
    """
    if measure(most) > _SLOW:
        return most
    chosen, best = 1, measure(1)
    threads = 1
    while threads < most:
        threads = min(2 * threads, most)
        seconds = measure(threads)
        if seconds > best * _WORTH:
            break
        chosen, best = threads, seconds
    return chosen


def _seconds(backend: Backend, threads: int) -> float:
    """Seconds of one step, the least of several. One is enough if it is slow."""
    torch.set_num_threads(threads)
    slot = backend.open(_TOKENS)
    try:
        tokens = torch.arange(_TOKENS) % backend.vocab_size
        step = Step((EncodeSegment(slot, 0, tokens, predict=Predict(torch.zeros(1))),))
        best = float("inf")
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            backend.run(step)
            best = min(best, time.perf_counter() - began)
            if best > _SLOW:
                break
        return best
    finally:
        backend.close(slot)
