"""``DiffusionGemmaSelector``: selects by label probabilities instead of parsing a generated answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.questions import MOST_OPTIONS, Question, check_draws
from dgemma_core.api.setting_table import Setting
from dgemma_core.errors import ContextOverflowError
from dgemma_integrations.llama_index.choices import Choice, groups_of, named_choices, options_of
from dgemma_integrations.llama_index.concurrency import together
from dgemma_integrations.llama_index.decisions import Decisions, resolve_llm
from dgemma_integrations.llama_index.llm import DiffusionGemma
from dgemma_integrations.llama_index.questions import as_line, as_template
from dgemma_integrations.shared.blocking import run_blocking
from dgemma_integrations.shared.checks import check_calibration, check_probability

DEFAULT_SINGLE_QUESTION = "Which option fits the request?"
DEFAULT_MULTI_QUESTION = "Is this option useful for the request: {choice}"
_MAX_OUTPUTS = Setting("Most choices to select.", low=1, name="max_outputs", type=int | None)


class SelectorOptions(TypedDict, total=False):
    """Keyword arguments of the selector, except the LLM."""

    multi: bool
    max_outputs: int | None
    threshold: float
    question: str | PromptTemplate | None
    draws: int
    calibration: Calibration | None


class DiffusionGemmaSelector(BaseSelector):
    """Selects among choices (a router's query engines, retrievers, tools) by the probabilities of labels.

    The request is the context of a decision. Without ``multi``, the choices are the options of one question. With
    ``multi``, each choice is a yes/no question. One denoising step answers them all, so selecting costs about as much
    as one step of an answer, and nothing has to be parsed. Each selection's ``reason`` states its probability.

    One question holds 26 choices. If there are more, or if they do not fit the context window, they are asked about in
    groups side by side. The winners of the groups then meet in a final question.

    Args:
        llm: the LLM whose engine is asked; ``Settings.llm`` if not given.
        multi: select all choices that are likely enough, the likeliest first, but at least one. Else select exactly
            one.
        max_outputs: with ``multi``, the most choices to select.
        threshold: with ``multi``, the probability from which a choice is selected, 0 to 1.
        question: the question; with ``multi`` it must contain ``{choice}``. ``{query_str}`` is filled in, too.
        draws: noise draws to average over, one denoising step each.
        calibration: from ``dgemma_core.fit_calibration``; without it the probabilities are the model's own.

    Raises:
        ValueError: a bad value, or an LLM that is not a ``DiffusionGemma``.

    Examples:
        ```python
        from llama_index.core.query_engine import RouterQueryEngine
        from dgemma_integrations.llama_index import DiffusionGemma, DiffusionGemmaSelector

        llm = DiffusionGemma()
        router = RouterQueryEngine(DiffusionGemmaSelector(llm), query_engine_tools, llm=llm)
        ```
    """

    def __init__(
        self,
        llm: DiffusionGemma | None = None,
        *,
        multi: bool = False,
        max_outputs: int | None = None,
        threshold: float = 0.5,
        question: str | PromptTemplate | None = None,
        draws: int = 1,
        calibration: Calibration | None = None,
    ) -> None:
        self._llm = resolve_llm(llm, type(self).__name__)
        if not isinstance(multi, bool):
            raise ValueError(f"multi={multi!r}: must be True or False")
        check_calibration(calibration)
        self._multi = multi
        self._max_outputs = _MAX_OUTPUTS.checked(max_outputs)
        self._threshold = check_probability("threshold", threshold)
        self._draws = check_draws(draws)
        self._calibration = calibration
        self._question = self._as_question(
            question or (DEFAULT_MULTI_QUESTION if multi else DEFAULT_SINGLE_QUESTION), "question"
        )

    @classmethod
    def from_defaults(
        cls, llm: DiffusionGemma | None = None, **settings: Unpack[SelectorOptions]
    ) -> DiffusionGemmaSelector:
        """The same as the constructor, under the name that LlamaIndex's selectors use.

        Args:
            llm: the LLM whose engine is asked; ``Settings.llm`` if not given.
            **settings: as for the class.
        """
        return cls(llm, **settings)

    def _as_question(self, value: Any, name: str) -> PromptTemplate:
        return as_template(name, value, ("choice",) if self._multi else ())

    def _get_prompts(self) -> PromptDictType:
        return {"prompt": self._question}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "prompt" in prompts:
            self._question = self._as_question(prompts["prompt"], "prompt")

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return run_blocking(self._aselect(choices, query))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        named = named_choices(choices)
        if not query.query_str.strip():
            raise ValueError(f"query={query.query_str!r}: there is nothing to select by")
        decisions = await Decisions.open(self._llm, self._draws, self._calibration)
        if self._multi:
            return self._selected(named, await self._each(decisions, named, query.query_str))
        if len(named) == 1:
            return SelectorResult(selections=[SingleSelection(index=0, reason=f"'{named[0].name}' is the only choice")])
        best, probability = await self._best(decisions, named, query.query_str)
        reason = f"'{best.name}' fits with probability {probability:.3f}"
        return SelectorResult(selections=[SingleSelection(index=best.index, reason=reason)])

    # --- one of many ---

    async def _best(self, decisions: Decisions, choices: Sequence[Choice], query: str) -> tuple[Choice, float]:
        """The likeliest choice and its probability in the question that decided."""
        if len(choices) <= MOST_OPTIONS:
            try:
                return await self._pick(decisions, choices, query)
            except ContextOverflowError as error:
                if len(choices) < 4:  # Smaller groups would hold one choice and decide nothing.
                    error.add_note("Shorten the descriptions of the choices, or the query.")
                    raise
        size = min(MOST_OPTIONS, -(-len(choices) // 2))
        winners = await together(
            self._best(decisions, group, query) if len(group) > 1 else _only(group[0])
            for group in groups_of(choices, size)
        )
        return await self._best(decisions, [choice for choice, _ in winners], query)

    async def _pick(self, decisions: Decisions, choices: Sequence[Choice], query: str) -> tuple[Choice, float]:
        text = as_line(self._question, query_str=query, num_choices=str(len(choices)))
        answers = await decisions.ask(query, {"which": Question("choice", text, options_of(choices))})
        probabilities = list(answers["which"].probabilities.values())
        best = max(range(len(choices)), key=probabilities.__getitem__)
        return choices[best], probabilities[best]

    # --- any of many ---

    async def _each(self, decisions: Decisions, choices: Sequence[Choice], query: str) -> list[float]:
        """Every choice's probability of yes."""
        questions = {
            str(choice.index): Question("bool", as_line(self._question, query_str=query, choice=str(choice)))
            for choice in choices
        }
        try:
            answers = await decisions.ask(query, questions)
        except ContextOverflowError as error:
            if len(choices) == 1:
                error.add_note(f"Shorten the description of choice {choices[0].name!r}, or the query.")
                raise
            halves = groups_of(choices, -(-len(choices) // 2))
            return [p for part in await together(self._each(decisions, half, query) for half in halves) for p in part]
        return [answers[str(choice.index)].probabilities["yes"] for choice in choices]

    def _selected(self, choices: Sequence[Choice], probabilities: Sequence[float]) -> SelectorResult:
        ranked = sorted(zip(choices, probabilities, strict=True), key=lambda pair: -pair[1])
        likely = [pair for pair in ranked if pair[1] >= self._threshold][: self._max_outputs]
        selections = [
            SingleSelection(index=choice.index, reason=f"'{choice.name}' fits with probability {probability:.3f}")
            for choice, probability in likely
        ]
        if not selections:
            choice, probability = ranked[0]
            reason = (
                f"'{choice.name}' is the likeliest choice; its probability {probability:.3f} is below the threshold "
                f"{self._threshold}"
            )
            selections = [SingleSelection(index=choice.index, reason=reason)]
        return SelectorResult(selections=selections)


async def _only(choice: Choice) -> tuple[Choice, float]:
    return choice, 1.0
