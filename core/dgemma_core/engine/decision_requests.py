"""Typed questions as sequences, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.messages import Message
from dgemma_core.api.questions import Answer, Question
from dgemma_core.api.sampling_params import SamplingParams, check_timeout
from dgemma_core.engine.admission import Admission
from dgemma_core.engine.sequence import Sequence
from dgemma_core.structured.decision_guide import DecisionGuide, read_answers
from dgemma_core.structured.decision_plan import Ask, plan_asks
from dgemma_core.structured.forms import FormWriter


@dataclass(frozen=True)
class AskedQuestions:
    """Requests that ask questions. Each is one canvas.

    Attributes:
        questions: by name.
        asks: the questions and the layout of each canvas.
        sequences: one per canvas.
        guides: one per canvas.
    """

    questions: Mapping[str, Question]
    asks: tuple[Ask, ...]
    sequences: tuple[Sequence, ...]
    guides: tuple[DecisionGuide, ...]

    @property
    def handles(self) -> list[RequestHandle]:
        """The handles to wait for."""
        return [sequence.handle for sequence in self.sequences]

    def cancel(self) -> None:
        """Cancel the requests that have not ended."""
        for sequence in self.sequences:
            sequence.handle.cancel()

    def answers(self, calibration: Calibration | None) -> dict[str, Answer]:
        """The answers by the questions' names. Call it when all handles have resolved."""
        return read_answers(zip(self.asks, self.guides, strict=True), self.questions, calibration)


def asked(
    admission: Admission,
    context: str | Seq[Message],
    questions: Mapping[str, Question],
    draws: int,
    seed: int | None,
    timeout: float | None,
) -> AskedQuestions:
    """The requests that ask the questions. Queued together they share a step and encode the context once.

    After queueing them, the caller must call ``cancel`` when it stops waiting, for any reason.

    Args:
        admission: makes the sequences.
        context: the text or messages that the questions are about.
        questions: by name.
        draws: noise draws to average over.
        seed: of the noise.
        timeout: seconds after which the requests are dropped.

    Raises:
        ValueError: bad questions; the message names them.
        DGemmaError: as ``Engine.submit``.
    """
    timeout = check_timeout(timeout)
    description = admission.parts.description
    writer = FormWriter(admission.parts.template.plain, description.end_id, description.pad_id)
    asks = plan_asks(context, questions, writer, description.canvas_limit)
    guides = [DecisionGuide(ask.form, description.pad_id, draws) for ask in asks]
    sequences = [_sequence(admission, ask, guide, seed, timeout) for ask, guide in zip(asks, guides, strict=True)]
    return AskedQuestions(questions, tuple(asks), tuple(sequences), tuple(guides))


def _sequence(
    admission: Admission, ask: Ask, guide: DecisionGuide, seed: int | None, timeout: float | None
) -> Sequence:
    prompt = admission.render(ask.messages)
    length = ask.canvas_length
    params = SamplingParams(max_new_tokens=length, canvas_length=length, seed=seed)
    settings = admission.parts.description.defaults.with_params(params)
    return admission.rendered_sequence(
        prompt, settings, params, admission.room(len(prompt.ids), length), guide, timeout
    )
