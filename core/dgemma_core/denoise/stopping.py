"""When a canvas is done."""

from __future__ import annotations

from torch import Tensor

from dgemma_core.denoise.denoise_settings import DenoiseSettings
from dgemma_core.denoise.sampling import first_end


class StoppingRule:
    """The rule of transformers' ``StableAndConfidentStoppingCriteria``: the canvas is stable, and its mean entropy low.

    With ``stop_at_eos`` the rule is answer-aware: it looks at the positions up to the answer's end alone, and takes
    those after it for certain.

    Args:
        settings: the request's.
        end_ids: int64 ``[ends]``, ids that end an answer.
        budget: tokens the answer may still take.
    """

    def __init__(self, settings: DenoiseSettings, end_ids: Tensor, budget: int) -> None:
        self._settings = settings
        self._end_ids = end_ids
        self._budget = budget
        self._unchanged = 0

    def answer_end(self, argmax: Tensor, horizon: int | None) -> int:
        """Position after the answer's end token. Under the reference rule it is the end of the canvas.

        Args:
            argmax: int64 ``[canvas]``, the likeliest tokens.
            horizon: length of the answer on this canvas if a guide knows it.
        """
        length = self._settings.canvas_length
        if not self._settings.stop_at_eos:
            return length
        end = first_end(argmax, self._end_ids) + 1 if horizon is None else horizon
        return min(max(end, 1), self._budget, length)

    def met(self, same: Tensor, entropy: Tensor) -> bool:
        """Whether the canvas is done after one more step. Call it once per step.

        Args:
            same: bool ``[end]``, positions up to the answer's end whose likeliest token the step has not changed.
            entropy: float32 ``[end]``, nats, of the same positions.
        """
        self._unchanged = self._unchanged + 1 if bool(same.all()) else 0
        stable = self._unchanged >= self._settings.stability_threshold
        # A mean over the whole canvas, as in the reference: positions after the end count as certain.
        mean = float(entropy.sum()) / self._settings.canvas_length
        return stable and mean < self._settings.confidence_threshold

    def restart(self) -> None:
        """Count stable steps from 0: the canvas was changed from outside."""
        self._unchanged = 0
