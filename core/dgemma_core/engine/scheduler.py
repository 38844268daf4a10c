"""Chooses the sequences that take part in the next step, within a token budget. Owns no tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dgemma_core.engine.loans import Lenders, Loan
from dgemma_core.engine.sequence import Sequence


@dataclass(frozen=True)
class Work:
    """One sequence's part in a step.

    Attributes:
        sequence: the sequence.
        encode: number of pending tokens to encode (a prompt chunk or a finished canvas); 0 for none.
        denoise: whether its canvas takes a denoising step in the same pass.
        loan: pending tokens before the encoded ones, copied from another sequence of the same pass.
    """

    sequence: Sequence
    encode: int
    denoise: bool
    loan: Loan | None = None

    @property
    def begin(self) -> int:
        """Position of the first token to encode."""
        return self.sequence.committed + (self.loan.length if self.loan else 0)

    @property
    def denoises(self) -> bool:
        """Whether a canvas takes a step. A writer may have none."""
        writer = self.sequence.writer
        return self.denoise and (writer is None or writer.canvas is not None)

    @property
    def tokens(self) -> int:
        """Positions that this work adds to the flat batch."""
        return self.encode + (self.sequence.active if self.denoise else 0)

    def alone(self) -> Work:
        """The same work without a loan: the sequence encodes all tokens itself."""
        return replace(self, encode=self.encode + self.loan.length, loan=None) if self.loan else self


class Scheduler:
    """Continuous batching by steps, first come, first served.

    The idea is iteration-level scheduling, from Orca (https://www.usenix.org/conference/osdi22/presentation/yu).
    Running sequences take part first; if the budget is too small for all, they take turns. Waiting sequences are
    admitted while the budget lasts. A prompt longer than the budget is encoded in chunks over several steps; an image
    is never split. If prompts of one step begin alike, their common beginning is encoded once.

    Args:
        max_batch_tokens: most positions in one forward pass.
        max_running: sequences that may hold keys and values at once.
    """

    def __init__(self, max_batch_tokens: int, max_running: int) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.max_running = max_running
        self.waiting: deque[Sequence] = deque()
        self.running: deque[Sequence] = deque()

    def __bool__(self) -> bool:
        return bool(self.waiting or self.running)

    def sequences(self) -> list[Sequence]:
        """All sequences, running ones first."""
        return [*self.running, *self.waiting]

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended, running or waiting."""
        for queue in (self.running, self.waiting):
            try:
                queue.remove(sequence)
            except ValueError:
                continue

    def put_back(self, sequence: Sequence) -> None:
        """Let a sequence that was just admitted wait again, first in the queue."""
        self.running.remove(sequence)
        self.waiting.appendleft(sequence)

    def admit(self) -> Iterable[Sequence]:
        """Move waiting sequences to the running ones while there is room. Yields each; the caller opens its slot."""
        spare = self.max_batch_tokens - sum(self._wanted(s) for s in self.running)
        while self.waiting and len(self.running) < self.max_running and (spare > 0 or not self.running):
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            yield sequence
            spare -= self._wanted(sequence)

    def schedule(self) -> list[Work]:
        """The work of the next step. Sequences that do not fit come first in the step after it."""
        work: list[Work] = []
        left = self.max_batch_tokens
        lenders = Lenders() if any(s.prefilling for s in self.running) else None
        for _ in range(len(self.running)):
            sequence = self.running[0]
            part = self._fit(sequence, left, lenders.find(sequence) if lenders else None, first=not work)
            if part is None:
                break
            self.running.rotate(-1)
            work.append(part)
            left -= part.tokens
            if lenders:
                lenders.add(sequence, part.begin + part.encode)
        return work

    @staticmethod
    def _wanted(sequence: Sequence) -> int:
        return sequence.pending + sequence.active

    def _fit(self, sequence: Sequence, left: int, loan: Loan | None, first: bool) -> Work | None:
        """The work of a sequence that fits ``left`` positions, or None. The ``first`` of a step always gets some."""
        borrowed = loan.length if loan else 0
        if self._wanted(sequence) - borrowed <= left:
            return Work(sequence, sequence.pending - borrowed, denoise=True, loan=loan)
        if sequence.pending and left > 0:
            chunk = sequence.chunk(left, borrowed)
            if not chunk and first:
                # A lone image larger than the whole budget still has to be encoded.
                chunk = sequence.images[0].length
            return Work(sequence, chunk, denoise=False, loan=loan) if chunk or loan else None
        # A lone canvas wider than the whole budget still has to run.
        return Work(sequence, 0, denoise=True) if first else None
