"""Runs steps so that a failed pass ends only the request at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from dgemma_core.engine.scheduler import Work
from dgemma_core.engine.step import PartResult, StepRunner, commit
from dgemma_core.errors import DGemmaError, OutOfMemoryError, is_out_of_memory

Outcome = tuple[Work, PartResult, Exception | None]


class IsolatedSteps:
    """Runs a step's work, and isolates the requests that fail.

    A pass that runs out of memory is tried again after the prefix cache is dropped. A pass that still fails, for any
    reason, is split in halves. In the end only a request that cannot run alone fails, with its own error.

    Args:
        runner: runs work.
        on_out_of_memory: frees memory.

    Attributes:
        passes: forward passes that succeeded.
    """

    def __init__(self, runner: StepRunner, on_out_of_memory: Callable[[], None]) -> None:
        self._runner = runner
        self._retrying = retry_once(on_out_of_memory)
        self.passes = 0

    def run(self, work: Seq[Work]) -> Iterator[Outcome]:
        """Run work. Yields every part with its result or its error."""
        opened, failed = self._open(work)
        yield from failed
        # A lender may have failed, so the others run without loans.
        yield from self._run([part.alone() for part in opened] if failed else opened)

    def _open(self, work: Seq[Work]) -> tuple[list[Work], list[Outcome]]:
        opened: list[Work] = []
        failed: list[Outcome] = []
        for part in work:
            try:
                self._runner.open_canvas(part)
            except Exception as error:
                failed.append((part, None, error))
            else:
                opened.append(part)
        return opened, failed

    def _run(self, work: Seq[Work]) -> Iterator[Outcome]:
        if not work:
            return
        try:
            results = self._retrying(self._runner.forward, work)
        except Exception as error:
            if len(work) == 1:
                yield work[0], None, error
                return
            middle = len(work) // 2
            yield from self._run([part.alone() for part in work[:middle]])
            yield from self._run([part.alone() for part in work[middle:]])
            return
        self.passes += 1
        commit(work)
        for part, result in zip(work, results, strict=True):
            yield part, result, None


def retry_once(on_out_of_memory: Callable[[], None]) -> Retrying:
    """If a function runs out of memory, calls ``on_out_of_memory``, then the function again, once."""

    def free(_state: RetryCallState) -> None:
        on_out_of_memory()

    return Retrying(
        retry=retry_if_exception(is_out_of_memory), stop=stop_after_attempt(2), before_sleep=free, reraise=True
    )


def as_engine_error(error: BaseException) -> BaseException:
    """The error as callers see it: a ``DGemmaError``. Another error becomes its cause."""
    if isinstance(error, DGemmaError):
        return error
    if is_out_of_memory(error):
        wrapped: DGemmaError = OutOfMemoryError(
            f"the request does not fit into memory even alone: {error}. Lower max_new_tokens or the prompt's length, "
            "or load with quantization or a smaller dtype."
        )
    else:
        wrapped = DGemmaError(f"the request failed in a denoising step: {error!r}")
    wrapped.__cause__ = error
    return wrapped
