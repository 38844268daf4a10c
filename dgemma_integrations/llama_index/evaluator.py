"""The base of evaluators that read the probability of "yes" instead of looking for the word in an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.questions import Question, check_draws
from dgemma_integrations.llama_index.decisions import Decisions, resolve_llm
from dgemma_integrations.llama_index.llm import DiffusionGemma
from dgemma_integrations.llama_index.questions import as_line, as_template
from dgemma_integrations.shared.blocking import run_blocking
from dgemma_integrations.shared.checks import check_calibration, check_probability

_VARIABLES = ("query", "response", "reference")


class DiffusionGemmaEvaluator(BaseEvaluator):
    """Asks yes/no questions about a response. It passes if "yes" is likely enough for every question.

    ``score`` is the probability of yes, the lowest one if there are several questions. ``feedback`` has the probability
    for each question. One denoising step answers all questions about a response. The contexts come first in the prompt,
    so several evaluators of the same contexts compute their keys and values once.

    Subclasses set the arguments they need and the question. This class asks your own question about the contexts.

    Args:
        llm: the LLM whose engine is asked; ``Settings.llm`` if not given.
        question: the question; may contain ``{query}``, ``{response}`` and ``{reference}``.
        threshold: probability of yes from which a response passes, 0 to 1.
        raise_error: raise a ``ValueError`` for a response that does not pass.
        draws: noise draws to average over, one denoising step each.
        calibration: from ``dgemma_core.fit_calibration``; without it the probabilities are the model's own.

    Raises:
        ValueError: a bad value, or an LLM that is not a ``DiffusionGemma``.

    Examples:
        ```python
        from dgemma_integrations.llama_index import DiffusionGemma, DiffusionGemmaEvaluator

        polite = DiffusionGemmaEvaluator(DiffusionGemma(), question="Is this answer polite: {response}")
        result = polite.evaluate(query="Why?", response="Because.", contexts=["Reasons."])
        print(result.passing, result.score, result.feedback)
        ```
    """

    # Arguments that aevaluate() must get. If contexts are among them, the questions are about the contexts.
    needs: ClassVar[tuple[str, ...]] = ("response", "contexts")
    default_question: ClassVar[str | None] = None
    # Without contexts, the questions are about this text.
    text: ClassVar[str] = ""

    def __init__(
        self,
        llm: DiffusionGemma | None = None,
        question: str | PromptTemplate | None = None,
        *,
        threshold: float = 0.5,
        raise_error: bool = False,
        draws: int = 1,
        calibration: Calibration | None = None,
    ) -> None:
        self._llm = resolve_llm(llm, type(self).__name__)
        check_calibration(calibration)
        self._question = as_template("question", question or self.default_question)
        self._threshold = check_probability("threshold", threshold)
        self._raise_error = raise_error
        self._draws = check_draws(draws)
        self._calibration = calibration

    def _get_prompts(self) -> PromptDictType:
        return {"eval_template": self._question}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "eval_template" in prompts:
            self._question = as_template("eval_template", prompts["eval_template"])

    def evaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """:meth:`aevaluate` for callers without an event loop, or in the thread of a running one."""
        return run_blocking(self.aevaluate(query=query, response=response, contexts=contexts, **kwargs))

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        reference: str | None = None,
        sleep_time_in_seconds: float = 0,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Ask about one response.

        Args:
            query: the user's question.
            response: the answer to it.
            contexts: the retrieved texts. If they do not fit the context window, the questions are asked about their
                parts, and the best part counts.
            reference: the right answer.
            sleep_time_in_seconds: seconds to wait first.
            **kwargs: arguments of other evaluators in the same run; ignored.

        Raises:
            ValueError: a needed argument is missing, or ``raise_error`` is set and the response fails.
            ContextOverflowError: question and text do not fit the context window.
            DGemmaError: as ``Engine.adecide``.
        """
        given = {"query": query, "response": response, "contexts": contexts, "reference": reference}
        missing = [name for name in self.needs if given[name] is None]
        if missing:
            raise ValueError(
                f"{', '.join(self.needs)} must be provided to {type(self).__name__}; missing: {', '.join(missing)}"
            )
        if sleep_time_in_seconds:
            await asyncio.sleep(sleep_time_in_seconds)
        values = {name: str(given[name] or "") for name in _VARIABLES}
        if contexts is not None and "contexts" in self.needs:
            text = "\n\n".join(part for part in contexts if part.strip())
        else:
            text = self.text.format(**values)
        questions = self._questions(values)
        if text.strip():
            chances = await self._chances(text, questions)
            feedback = "\n".join(self._verdict(question.text, chances[name]) for name, question in questions.items())
        else:
            chances, feedback = dict.fromkeys(questions, 0.0), "no: there is no context that could support it"
        score = min(chances.values())
        passing = score >= self._threshold
        if self._raise_error and not passing:
            raise ValueError(f"The response is invalid: {feedback}")
        return EvaluationResult(
            query=query, response=response, contexts=contexts, passing=passing, score=score, feedback=feedback
        )

    def _questions(self, values: Mapping[str, str]) -> dict[str, Question]:
        return {"passing": Question("bool", as_line(self._question, **values))}

    async def _chances(self, text: str, questions: Mapping[str, Question]) -> dict[str, float]:
        decisions = await Decisions.open(self._llm, self._draws, self._calibration)
        # Only contexts may be split, because half of a response is not the response.
        answers = await decisions.ask_long(text, questions, "split" if "contexts" in self.needs else "error")
        return {name: max(answer[name].probabilities["yes"] for answer in answers) for name in questions}

    def _verdict(self, question: str, chance: float) -> str:
        word = "yes" if chance >= self._threshold else "no"
        return f"{word} (probability of yes {chance:.3f}, threshold {self._threshold}): {question}"
