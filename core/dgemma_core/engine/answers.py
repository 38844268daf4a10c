"""Where text comes back: a sequence's canvases become drafts, blocks and the finished generation."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace

from dgemma_core.api.events import BlockEvent, DraftEvent, FinishReason, Generation, TokenLogprob
from dgemma_core.denoise.canvas import Canvas
from dgemma_core.denoise.causal_writer import Accepted
from dgemma_core.denoise.sliding_canvas import SlidingCanvas
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
    return _block(sequence, *sequence.close_canvas(end_ids))


def _block(
    sequence: Sequence, tokens: Seq[int], reason: FinishReason | None
) -> tuple[BlockEvent | None, FinishReason | None]:
    detokenizer = sequence.detokenizer
    thoughts, calls = len(detokenizer.reasoning), len(detokenizer.tool_calls)
    text, kept, stopped = detokenizer.add(tokens, last=reason is not None)
    if stopped:
        reason = "stop"
    # An answer has one block at least, even an empty one.
    if not (text or kept or (reason and not sequence.blocks)):
        return None, reason
    block = BlockEvent(
        text,
        kept,
        sequence.blocks,
        detokenizer.reasoning[thoughts:],
        detokenizer.tool_calls[calls:],
        _logprobs(sequence, len(detokenizer.kept) - len(kept)),
    )
    sequence.blocks += 1
    return block, reason


def sliding_draft_event(sequence: Sequence, canvas: SlidingCanvas, end_ids: frozenset[int]) -> DraftEvent:
    """What a writer's canvas drafts after the tokens that are known.

    Args:
        sequence: whose canvas it is.
        canvas: after it has moved past the accepted tokens.
        end_ids: token ids that end an answer.
    """
    tokens = canvas.draft(canvas.length)
    known = int(canvas.pinned.sum())
    text = sequence.detokenizer.decode(before_end(tokens, end_ids))
    return DraftEvent(text, canvas.steps, tuple(canvas.entropy[known : known + len(tokens)].tolist()))


def accepted_block(sequence: Sequence, accepted: Accepted) -> tuple[BlockEvent | None, FinishReason | None]:
    """Take accepted tokens into the answer.

    Args:
        sequence: whose answer it is.
        accepted: of a writer's pass.

    Returns:
        The new text as a block, None if there is none to show yet; and why the answer ends here, None if it goes on.
    """
    reason: FinishReason | None = ("length" if accepted.cut else "stop") if accepted.ended else None
    return _block(sequence, accepted.tokens, reason)


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
        _logprobs(sequence, 0),
    )


def _logprobs(sequence: Sequence, start: int) -> tuple[TokenLogprob, ...] | None:
    """The log-probabilities of the confirmed tokens from ``start`` on; None unless they were asked for."""
    if sequence.logprobs is None:
        return None
    found = sequence.logprobs[start : len(sequence.detokenizer.kept)]
    text = sequence.detokenizer.in_text(start)
    return tuple(one if i in text else replace(one, in_text=False) for i, one in enumerate(found, start))
