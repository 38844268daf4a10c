"""Evaluators that ask one question about contexts, query and response."""

from __future__ import annotations

from dgemma_integrations.llama_index.evaluator import DiffusionGemmaEvaluator


class DiffusionGemmaFaithfulnessEvaluator(DiffusionGemmaEvaluator):
    """Whether the response is supported by the contexts. Arguments as :class:`DiffusionGemmaEvaluator`."""

    default_question = "Does the text support this answer: {response}"


class DiffusionGemmaRelevancyEvaluator(DiffusionGemmaEvaluator):
    """Whether response and contexts are about the query. Arguments as :class:`DiffusionGemmaEvaluator`."""

    needs = ("query", "response", "contexts")
    default_question = 'Is the answer "{response}" to the question "{query}" in line with the text?'


class DiffusionGemmaContextRelevancyEvaluator(DiffusionGemmaEvaluator):
    """Whether the contexts answer the query. Arguments as :class:`DiffusionGemmaEvaluator`."""

    needs = ("query", "contexts")
    default_question = "Does the text answer this question: {query}"


class DiffusionGemmaAnswerRelevancyEvaluator(DiffusionGemmaEvaluator):
    """Whether the response answers the query. Arguments as :class:`DiffusionGemmaEvaluator`."""

    needs = ("query", "response")
    text = "Question: {query}\nAnswer: {response}"
    default_question = "Does the answer answer the question?"


class DiffusionGemmaCorrectnessEvaluator(DiffusionGemmaEvaluator):
    """Whether the response says what the reference says. Arguments as :class:`DiffusionGemmaEvaluator`.

    Unlike LlamaIndex's ``CorrectnessEvaluator`` it always needs ``reference``, and its score is a probability.
    """

    needs = ("query", "response", "reference")
    text = "Question: {query}\nRight answer: {reference}\nGiven answer: {response}"
    default_question = "Does the given answer say the same as the right answer?"
