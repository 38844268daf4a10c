"""Typed questions as sequences, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.messages import Message
from dgemma_core.api.params import SamplingParams, check_timeout
from dgemma_core.api.questions import Answer, Question
from dgemma_core.engine.admission import Admission
from dgemma_core.engine.sequence import Sequence
from dgemma_core.engine.worker import Worker
from dgemma_core.structured.decision_guide import DecisionGuide, read_answers
from dgemma_core.structured.decisions import Ask, plan_asks
from dgemma_core.structured.forms import FormWriter


@dataclass(frozen=True)
class AskedQuestions:
    """Requests that ask questions, one canvas each.

    Attributes:
        questions: by name.
        asks: what each canvas asks.
        sequences: one per canvas.
        guides: one per canvas.
    """

    questions: Mapping[str, Question]
    asks: tuple[Ask, ...]
    sequences: tuple[Sequence, ...]
    guides: tuple[DecisionGuide, ...]

    @property
    def handles(self) -> list[RequestHandle]:
        """To wait for."""
        return [sequence.handle for sequence in self.sequences]

    def cancel(self) -> None:
        """Drop what is still open. Without effect on finished requests."""
        for sequence in self.sequences:
            sequence.handle.cancel()

    def answers(self, calibration: Calibration | None) -> dict[str, Answer]:
        """The answers by the questions' names, once all handles have resolved."""
        return read_answers(zip(self.asks, self.guides, strict=True), self.questions, calibration)


def asked(
    admission: Admission,
    worker: Worker,
    context: str | Seq[Message],
    questions: Mapping[str, Question],
    draws: int,
    seed: int | None,
    timeout: float | None,
    wait: bool,
) -> AskedQuestions:
    """Queue requests that ask the questions. The caller cancels them, whatever way its waiting ends.

    Args:
        admission: makes the sequences.
        worker: takes them.
        context: what is asked about.
        questions: by name.
        draws: noise draws to average over.
        seed: of the noise.
        timeout: seconds.
        wait: where the queue is full, block until there is room.

    Raises:
        ValueError: bad questions, naming them.
        DGemmaError: as ``Engine.submit``.
    """
    check_timeout(timeout)
    description = admission.parts.description
    writer = FormWriter(admission.parts.template.plain, description.end_id, description.pad_id)
    asks = plan_asks(context, questions, writer, description.canvas_limit)
    guides = [DecisionGuide(ask.form, description.pad_id, draws) for ask in asks]
    sequences = [_sequence(admission, ask, guide, seed, timeout) for ask, guide in zip(asks, guides, strict=True)]
    worker.submit(*sequences, wait=wait)  # At once: they share a step, and the context in it.
    return AskedQuestions(questions, tuple(asks), tuple(sequences), tuple(guides))


def _sequence(
    admission: Admission, ask: Ask, guide: DecisionGuide, seed: int | None, timeout: float | None
) -> Sequence:
    prompt = admission.render(ask.messages)
    length = ask.canvas_length
    params = SamplingParams(max_new_tokens=length, canvas_length=length, seed=seed)
    settings = admission.parts.description.defaults.with_params(params)
    return admission.guided(prompt, settings, params, admission.room(len(prompt.ids), length), guide, timeout)
