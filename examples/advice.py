"""What the demo says when the model does not know the answers."""

from __future__ import annotations

from collections.abc import Sequence

# The words that the embedded checkpoint is trained to answer with; other models use similar ones.
_ABSTAINING = ("does not say", "does not mention", "does not contain", "does not provide")

EMBEDDED_READS = (
    'The embedded checkpoint is small and reads short statements of the forms in examples/corpus, such as "The Peldor '
    'bridge was built in 1907.". For other text give the published checkpoint: '
    "--model google/diffusiongemma-26B-A4B-it (with make: HF_HUB_OFFLINE=0)."
)
OTHERS = "The passages may not hold the answers. --top-k 5 gives the model more of them."


def abstains(answer: str) -> bool:
    """Whether an answer says that the passages do not have it, or is empty."""
    return not answer.strip() or any(words in answer for words in _ABSTAINING)


def advice(model: str, answers: Sequence[str]) -> str:
    """What helps if most of the answers abstain; an empty text if they do not.

    Args:
        model: the demo's ``--model``.
        answers: the answers about the user's own documents or questions.
    """
    without = sum(map(abstains, answers))
    if not answers or 2 * without <= len(answers):
        return ""
    return f"{without} of {len(answers)} answers say nothing. {EMBEDDED_READS if model == 'embedded' else OTHERS}"
