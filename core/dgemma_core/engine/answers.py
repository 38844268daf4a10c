"""Where text comes back: a sequence's canvases become drafts, blocks and the finished generation."""

from __future__ import annotations

from dgemma_core.api.events import BlockEvent, DraftEvent, FinishReason, Generation
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.engine.sequence import Sequence, before_end


def draft_event(sequence: Sequence, canvas: Canvas, end_ids: frozenset[int]) -> DraftEvent:
    """The canvas as it reads after its last step.

    Args:
        sequence: whose canvas it is.
        canvas: after a step.
        end_ids: token ids that end an answer.
    """
    text = sequence.detokenizer.decode(before_end(canvas.argmax.tolist(), end_ids))
    return DraftEvent(text, canvas.steps, tuple(canvas.entropy.tolist()))


def close_canvas(sequence: Sequence, end_ids: frozenset[int]) -> tuple[BlockEvent | None, FinishReason | None]:
    """Take a finished canvas into the answer.

    Args:
        sequence: whose canvas it is.
        end_ids: token ids that end an answer.

    Returns:
        The new text as a block, None if there is none to show yet; and why the answer ends here, None if it goes on.
    """
    tokens, reason = sequence.close_canvas(end_ids)
    detokenizer = sequence.detokenizer
    thoughts, calls = len(detokenizer.reasoning), len(detokenizer.tool_calls)
    text, kept, stopped = detokenizer.add(tokens, last=reason is not None)
    if stopped:
        reason = "stop"
    # An answer has one block at least, even an empty one.
    if not (text or kept or (reason and not sequence.blocks)):
        return None, reason
    block = BlockEvent(text, kept, sequence.blocks, detokenizer.reasoning[thoughts:], detokenizer.tool_calls[calls:])
    sequence.blocks += 1
    return block, reason


def finished(sequence: Sequence, reason: FinishReason) -> Generation:
    """The answer so far, as the request's result.

    Args:
        sequence: whose answer it is.
        reason: why it ends.
    """
    detokenizer = sequence.detokenizer
    if detokenizer.tool_calls and reason == "stop":
        reason = "tool_calls"
    return Generation(
        detokenizer.text,
        tuple(detokenizer.kept),
        reason,
        sequence.usage(),
        detokenizer.tool_calls,
        detokenizer.reasoning,
    )
