"""``DiffusionGemmaGuidelineEvaluator``: whether a response follows guidelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.questions import Question
from dgemma_integrations.llama_index.evaluator import DiffusionGemmaEvaluator
from dgemma_integrations.llama_index.llm import DiffusionGemma
from dgemma_integrations.llama_index.questions import as_line, as_template

DEFAULT_GUIDELINES: Final = (
    "The response fully answers the query.",
    "The response is neither vague nor ambiguous.",
    "The response is specific.",
)


class DiffusionGemmaGuidelineEvaluator(DiffusionGemmaEvaluator):
    """Whether the response follows guidelines. Each is a question, and one denoising step answers them all.

    Args:
        llm: the LLM whose engine is asked; ``Settings.llm`` if not given.
        guidelines: a list of guidelines, or a text with one per line.
        question: the question for each guideline; must contain ``{guideline}``.
        threshold: this and the others as for :class:`DiffusionGemmaEvaluator`.
        raise_error: raise a ``ValueError`` for a response that does not pass.
        draws: noise draws to average over.
        calibration: scales the probabilities.

    Raises:
        ValueError: no guideline, a bad value, or an LLM that is not a ``DiffusionGemma``.
    """

    needs = ("query", "response")
    text = "Question: {query}\nAnswer: {response}"
    default_question = "Does the answer follow this guideline: {guideline}"

    def __init__(
        self,
        llm: DiffusionGemma | None = None,
        guidelines: str | Sequence[str] | None = None,
        question: str | PromptTemplate | None = None,
        *,
        threshold: float = 0.5,
        raise_error: bool = False,
        draws: int = 1,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(
            llm, question, threshold=threshold, raise_error=raise_error, draws=draws, calibration=calibration
        )
        as_template("question", self._question, ("guideline",))
        given = DEFAULT_GUIDELINES if guidelines is None else guidelines
        lines = given.splitlines() if isinstance(given, str) else list(given)
        self._guidelines = tuple(line.strip() for line in lines if line.strip())
        if not self._guidelines:
            raise ValueError(f"guidelines={guidelines!r}: give at least one")

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "eval_template" in prompts:
            self._question = as_template("eval_template", prompts["eval_template"], ("guideline",))

    def _questions(self, values: Mapping[str, str]) -> dict[str, Question]:
        return {
            str(number): Question("bool", as_line(self._question, guideline=guideline, **values))
            for number, guideline in enumerate(self._guidelines)
        }
