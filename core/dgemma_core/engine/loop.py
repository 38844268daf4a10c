"""The engine's loop: admit, schedule, run a step, hand out its results. For the worker thread only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from dgemma_core.api.events import FinishReason
from dgemma_core.denoise.causal_writer import Accepted
from dgemma_core.engine.answers import accepted_block, close_canvas, draft_event, finished, sliding_draft_event
from dgemma_core.engine.counters import Counters
from dgemma_core.engine.isolation import IsolatedSteps, Outcome, as_engine_error, retry_once
from dgemma_core.engine.prefixes import PrefixCache
from dgemma_core.engine.scheduler import Scheduler, Work
from dgemma_core.engine.sequence import Sequence
from dgemma_core.engine.step import StepRunner, book, slot_of
from dgemma_core.engine.writer_step import Written, book_written
from dgemma_core.errors import is_out_of_memory
from dgemma_core.execution.backend import Backend

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A backend with its weights, and its limits.

    Attributes:
        backend: holds the weights.
        prefix_cache_bytes: budget of the prefix cache; 0 turns it off.
        max_batch_tokens: positions in one forward pass.
        max_running: sequences that may hold slots at once.
        end_ids: token ids that end an answer.
        load_s: seconds the weights took to load.
    """

    backend: Backend
    prefix_cache_bytes: int
    max_batch_tokens: int
    max_running: int
    end_ids: frozenset[int]
    load_s: float


class Loop:
    """Advances many sequences together, one step after another.

    Args:
        loaded: weights and limits.
        counters: of the engine; their lock is held while a sequence leaves.
        on_end: called with a sequence after its handle has resolved.
    """

    def __init__(self, loaded: Loaded, counters: Counters, on_end: Callable[[Sequence], None]) -> None:
        self.backend = loaded.backend
        self.scheduler = Scheduler(loaded.max_batch_tokens, loaded.max_running)
        self.prefixes = PrefixCache(loaded.backend, loaded.prefix_cache_bytes)
        self._end_ids = loaded.end_ids
        self._counters = counters
        self._on_end = on_end
        self._runner = StepRunner(loaded.backend, loaded.end_ids)
        self._steps = IsolatedSteps(self._runner, self._on_out_of_memory)
        self._passes = 0

    def step(self) -> None:
        """Run one step of the scheduled work."""
        for part, result, error in self._steps.run(self.scheduler.schedule()):
            # Counted before a request of this pass can end, so that its caller finds the pass in the counters.
            self._count_passes()
            try:
                self._advance((part, result, error))
            except Exception as failure:
                self.fail(part.sequence, as_engine_error(failure))

    def admit(self) -> None:
        """Give waiting sequences their slots while there is room. A slot begins with the longest cached prefix."""
        for sequence in self.scheduler.admit():
            try:
                self._open_slot(sequence)
            except Exception as error:
                if is_out_of_memory(error) and sequence.slot is None and len(self.scheduler.running) > 1:
                    # It is tried again after a running sequence has freed its memory.
                    self.scheduler.put_back(sequence)
                    break
                self.fail(sequence, as_engine_error(error))
        self._counters.raise_to(max_batch=len(self.scheduler.running))

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a request with its answer so far."""
        generation = finished(sequence, reason)
        usage = generation.usage
        ending = "cancelled" if reason == "cancelled" else "finished"
        with self._counters.lock:  # So that no snapshot misses a request between leaving and being counted.
            self._forget(sequence)
            self._counters.add(**{ending: 1}, completion_tokens=usage.completion_tokens, canvases=usage.canvases)
        sequence.handle.finish(generation)
        self._on_end(sequence)

    def fail(self, sequence: Sequence, error: BaseException) -> None:
        """End a request with an error."""
        with self._counters.lock:
            self._forget(sequence)
            self._counters.add(failed=1)
        sequence.handle.fail(error)
        self._on_end(sequence)

    def _open_slot(self, sequence: Sequence) -> None:
        slot = retry_once(self._on_out_of_memory)(self.backend.open, sequence.capacity)
        try:
            reused = self.prefixes.take(sequence.identities, slot)
        except Exception:
            self.backend.close(slot)
            raise
        sequence.start(slot, reused)
        if sequence.writer is not None:
            self._emit(sequence, sequence.begin())
        if reused:
            self._counters.add(prefix_hits=1, prefix_tokens=reused)

    def _advance(self, outcome: Outcome) -> None:
        """Book one part of a step: an error, an encoded chunk, or a denoised canvas."""
        part, result, error = outcome
        sequence = part.sequence
        if error is not None:
            self.fail(sequence, as_engine_error(error))
            return
        self._counters.add(prefill_tokens=part.encode)
        sequence.costs.forward_pass()
        if part.loan:
            self._counters.add(prefix_hits=1, prefix_tokens=part.loan.length)
        if part.encode and _is_worth_keeping(sequence, part.encode):
            self._remember(sequence)
        if isinstance(result, Written):
            self._advance_writer(part, result)
            return
        canvas = sequence.canvas
        if not part.denoise or canvas is None:
            return
        positions = canvas.active
        done = book(part, result)
        self._counters.add(denoising_steps=1, positions=positions)
        if sequence.guide is not None:
            done = sequence.review(done, self._runner.rows(sequence, canvas))
        if sequence.drafts:
            sequence.handle.emit(draft_event(sequence, canvas, self._end_ids))
        if done:
            block, reason = close_canvas(sequence, self._end_ids)
            if block is not None:
                sequence.handle.emit(block)
            if reason is not None:
                self.finish(sequence, reason)

    def _advance_writer(self, part: Work, result: Written) -> None:
        """Book what a writer's pass has predicted, and emit the new text."""
        sequence, writer = part.sequence, part.sequence.writer
        assert writer is not None
        if result.canvas is not None:
            self._counters.add(denoising_steps=1, positions=writer.canvas_length)
        accepted = book_written(part, result, self.backend, slot_of(sequence))
        ended = self._emit(sequence, accepted)
        # The draft stands after the text that has just been confirmed.
        if sequence.drafts and result.canvas is not None and writer.canvas is not None and not ended:
            sequence.handle.emit(sliding_draft_event(sequence, writer.canvas, self._end_ids))

    def _emit(self, sequence: Sequence, accepted: Accepted) -> bool:
        """Emit accepted tokens as a block. If the answer ends with them, end the request and return True."""
        block, reason = accepted_block(sequence, accepted)
        if block is not None:
            sequence.handle.emit(block)
        if reason is not None:
            self._remember(sequence)
            self.finish(sequence, reason)
        return reason is not None

    def _remember(self, sequence: Sequence) -> None:
        """Keep an encoded prompt for later requests, if there is memory for it."""
        try:
            self.prefixes.put(sequence.identities[: sequence.final], slot_of(sequence))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._on_out_of_memory()

    def _forget(self, sequence: Sequence) -> None:
        # Called before the handle resolves, so that its caller finds the engine idle.
        self.scheduler.remove(sequence)
        slot, sequence.slot, sequence.canvas = sequence.slot, None, None
        if slot is not None:
            self.backend.close(slot)

    def _count_passes(self) -> None:
        self._counters.add(forward_passes=self._steps.passes - self._passes)
        self._passes = self._steps.passes

    def _on_out_of_memory(self) -> None:
        logger.warning("out of memory: the prefix cache is dropped")
        self.prefixes.clear()
        self.backend.free_unused()


def _is_worth_keeping(sequence: Sequence, encoded: int) -> bool:
    """Whether the prefix cache gets what a sequence has encoded, the last ``encoded`` tokens of it in this pass.

    A writer encodes some tokens every pass. It is kept after its prompt, and again at its end.
    """
    if sequence.writer is None:
        return not sequence.pending
    return sequence.committed - encoded < sequence.prompt_length <= sequence.committed
