"""Counters and clocks of one request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from dgemma_core.api.usage import Usage


class Costs:
    """Counters and clocks of one request.

    Args:
        timeout: seconds after which the request has failed, or None.

    Attributes:
        deadline: the moment at which the request has failed, in seconds of ``time.monotonic()``, or None.
        cached_tokens: prompt tokens whose keys and values were reused.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self.deadline: float | None = None
        self.cached_tokens = 0
        self._canvases = 0
        self._steps = 0
        self._passes = 0
        self._positions = 0
        self._typing = False
        self._guide_s = 0.0
        self._submitted = time.monotonic()
        self._started: float | None = None
        self._denoising_since: float | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Count the timeout from now on."""
        self.deadline = None if self._timeout is None else time.monotonic() + self._timeout

    def start(self) -> None:
        """Note that the request leaves the queue."""
        self._started = time.monotonic()

    def step(self, positions: int) -> None:
        """Book one denoising step that computed ``positions`` positions."""
        self._steps += 1
        self._positions += positions
        self._has_token()

    def canvas(self) -> None:
        """Book one finished canvas, or the one that drafts."""
        self._canvases += 1

    def forward_pass(self) -> None:
        """Book one forward pass."""
        self._passes += 1

    def predicted(self) -> None:
        """Note that a pass has predicted tokens in the causal mode."""
        self._typing = True
        self._has_token()

    def _has_token(self) -> None:
        if self._denoising_since is None:
            self._denoising_since = time.monotonic()

    @contextmanager
    def guiding(self, really: bool = True) -> Iterator[None]:
        """Count the time inside this context as the guide's, if there ``really`` is one."""
        began = time.perf_counter()
        yield
        if really:
            self._guide_s += time.perf_counter() - began

    def timeout_text(self) -> str:
        """The error of a request whose deadline has passed: its timeout, the time that passed, and where."""
        timeout = self._timeout or 0.0
        elapsed = timeout if self.deadline is None else time.monotonic() - (self.deadline - timeout)
        remedy = "give it more seconds, or lower max_new_tokens (max_tokens in an adapter)"
        if self._started is None:
            stage, remedy = "in the queue", "give it more seconds, or send fewer requests at once"
        elif self._denoising_since is None:
            stage, remedy = "while its prompt was encoded", "give it more seconds, or shorten the prompt"
        elif self._typing:
            stage = f"while its answer was written ({self._passes} forward passes in all)"
        else:
            stage = f"while it was denoised (canvas {self._canvases + 1}, {self._steps} steps in all)"
        return f"timeout={timeout}: the request did not finish; it was dropped after {elapsed:.3g} s, {stage}; {remedy}"

    def usage(self, prompt_tokens: int, completion_tokens: int, reasoning_tokens: int) -> Usage:
        """The costs so far, as callers see them.

        Args:
            prompt_tokens: tokens of the rendered prompt.
            completion_tokens: tokens of the answer that were kept.
            reasoning_tokens: kept tokens that are reasoning.
        """
        now = time.monotonic()
        started = self._started or now
        denoising = self._denoising_since or now
        return Usage(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=completion_tokens,
            reasoning_tokens=reasoning_tokens,
            canvases=self._canvases,
            denoising_steps=self._steps,
            positions=self._positions,
            forward_passes=self._passes,
            guide_s=self._guide_s,
            queue_s=started - self._submitted,
            prefill_s=denoising - started,
            denoise_s=now - denoising,
        )
