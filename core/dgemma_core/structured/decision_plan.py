"""Typed decisions: several questions about one context, answered in one denoising step.

The canvas holds a form: the questions, each with noise in the blank for its answer. One step gives the probability of
every option, given the context and all the questions. Only the options' rows of the output embedding are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from dgemma_core.api.messages import Message
from dgemma_core.api.questions import Question, render_options
from dgemma_core.denoise.canvas import shortest_canvas
from dgemma_core.structured.forms import Form, FormWriter, Line


@dataclass(frozen=True)
class Ask:
    """The questions that one canvas answers.

    Attributes:
        names: of the questions.
        messages: the prompt.
        form: holds the answers.
        canvas_length: positions of the canvas, at least those of the form.
    """

    names: tuple[str, ...]
    messages: list[Message]
    form: Form
    canvas_length: int


def plan_asks(
    context: str | Sequence[Message], questions: Mapping[str, Question], writer: FormWriter, canvas_limit: int
) -> list[Ask]:
    """Distribute questions, in their order, over as few canvases as hold them.

    Args:
        context: a text, or chat messages.
        questions: by name.
        writer: of forms, in the checkpoint's tokens.
        canvas_limit: positions of the longest canvas.

    Raises:
        ValueError: bad context or questions; the error names them.
    """
    if not isinstance(questions, Mapping) or not questions:
        raise ValueError(f"questions={questions!r}: give a mapping from names to Question, at least one")
    for name, question in questions.items():
        if not isinstance(question, Question):
            raise ValueError(f"questions[{name!r}]={question!r}: must be a Question")
    if (isinstance(context, str) and not context.strip()) or not context:
        raise ValueError(f"context={context!r}: there is nothing to decide about")
    if not isinstance(context, str) and not all(isinstance(message, Message) for message in context):
        raise ValueError(f"context={context!r}: must be a text or a list of Message")
    items = iter(questions.items())
    return [
        _ask(context, dict(islice(items, len(lines))), lines, writer, canvas_limit)
        for lines in fill_canvases(questions.values(), writer, canvas_limit)
    ]


def fill_canvases(questions: Iterable[Question], writer: FormWriter, canvas_limit: int) -> Iterator[list[Line]]:
    """The lines of the questions, in their order: for each canvas as many as it holds, and at least one."""
    lines: list[Line] = []
    for question in questions:
        line = writer.line(len(lines) + 1, question)
        if lines and sum(map(len, lines)) + len(line) >= canvas_limit:  # The end token needs a position, too.
            yield lines
            lines = []
            line = writer.line(1, question)
        lines.append(line)
    yield lines


def decision_prompt(context: str | Sequence[Message], instruction: str) -> list[Message]:
    """Chat messages with the instruction after the context, so that the context's keys and values can be reused."""
    if isinstance(context, str):
        return [Message("user", f"{context}\n\n{instruction}")]
    messages = list(context)
    if messages and messages[-1].role == "user":
        return [*messages[:-1], replace(messages[-1], content=[*messages[-1].parts, f"\n\n{instruction}"])]
    return [*messages, Message("user", instruction)]


def _ask(
    context: str | Sequence[Message],
    batch: Mapping[str, Question],
    lines: Sequence[Line],
    writer: FormWriter,
    canvas_limit: int,
) -> Ask:
    asked = list(batch.values())
    form = writer.join(lines)
    # Only a question that is alone in its canvas can be too long for it.
    if spelled_out := len(form.tokens) > canvas_limit:
        form = writer.write(asked, spelled_out)
        if len(form.tokens) > canvas_limit:
            raise ValueError(
                f"options={asked[0].names!r}: their names do not fit a canvas of {canvas_limit} tokens: "
                "give short names, and what they mean as descriptions"
            )
    messages = decision_prompt(context, render_options(asked, spelled_out))
    return Ask(tuple(batch), messages, form, shortest_canvas(len(form.tokens), canvas_limit))
