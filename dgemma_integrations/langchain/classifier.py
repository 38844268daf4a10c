"""``DiffusionGemmaClassifier``: typed questions about a text, answered in one denoising step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import PrivateAttr, field_validator, model_validator

from dgemma_core.api.calibration import Calibration
from dgemma_core.api.plain_numbers import plain
from dgemma_core.api.protocol import Engine
from dgemma_core.api.questions import Answer, check_draws
from dgemma_core.api.sampling_params import check_timeout
from dgemma_integrations.langchain.errors import translated_errors
from dgemma_integrations.langchain.inputs import text_or_messages
from dgemma_integrations.langchain.lists import WholeLists
from dgemma_integrations.langchain.loading import EngineSettings
from dgemma_integrations.langchain.messages import ato_engine_messages, to_engine_messages
from dgemma_integrations.langchain.questions import QuestionSet, question_set
from dgemma_integrations.langchain.thresholds import thresholds_by_name
from dgemma_integrations.shared.checks import check_calibration
from dgemma_integrations.shared.fields import LoadOptions
from dgemma_integrations.shared.keywords import reject_unknown

_CALL_NAMES = ("draws", "seed", "timeout", "calibration", "threshold", "include_probabilities")


class ClassifierOptions(LoadOptions, total=False):
    """Keyword arguments of the classifier, except the questions and how they are answered."""

    engine: Engine | None
    calibration: Calibration | None
    draws: int
    seed: int | None
    timeout: float | None


class DiffusionGemmaClassifier(WholeLists, EngineSettings, RunnableSerializable[LanguageModelInput | BaseMessage, Any]):
    r"""Answers typed questions about a text, all in one denoising step. Use it to route, grade or guard.

    It is a runnable: it takes a string, messages or a prompt, and works in chains, batches and graphs. It shares the
    engine and the forward passes with all models that have the same load settings.

    Setup:
        ```bash
        pip install "dgemma[langchain]"
        ```

    Key init args:
        questions: `dgemma_core.Question`s by name, or a Pydantic class or TypedDict. The class's fields are `bool`,
            `Literal` or `Enum`, and their descriptions are the questions. Strings make a choice, integers an ordered
            score. The results are dicts, or objects of the Pydantic class.
        threshold: probability of yes from which a `bool` question is answered True: one number, or numbers by name.
            `None` takes the likelier answer.
        include_probabilities: the results are dicts with `value` and `answers`. `answers` has a `dgemma_core` `Answer`
            with all probabilities for every name.
        calibration: from `dgemma_core.fit_calibration`; without it probabilities are the model's own.
        draws: noise draws to average over, one denoising step each.
        seed: of the noise. Equal seeds give equal answers.
        timeout: most seconds for a request.
        model, device, dtype, ..., engine: see `ChatDiffusionGemma`.

    All but `questions` and the last line may also be given to a call, or bound.

    Instantiate:
        ```python
        from typing import Literal

        from pydantic import BaseModel, Field

        from dgemma_integrations.langchain import DiffusionGemmaClassifier


        class Ticket(BaseModel):
            urgent: bool = Field(description="Does the customer need help today?")
            team: Literal["billing", "repairs"] = Field(description="Which team should answer?")


        classifier = DiffusionGemmaClassifier(questions=Ticket)
        ```

    Invoke:
        ```python
        classifier.invoke("My invoice is wrong.")  # Ticket(urgent=..., team=...)
        classifier.batch(["My invoice is wrong.", "The lift is stuck!"])
        await classifier.ainvoke("My invoice is wrong.")
        ```
    """

    questions: Any
    """`Question`s by name, a Pydantic class or a TypedDict."""
    threshold: float | dict[str, float] | None = None
    """Probability of yes from which a `bool` question is answered True: one number, or numbers by name."""
    include_probabilities: bool = False
    """Return `{"value": ..., "answers": {name: Answer}}`."""
    calibration: Any = None
    """A `dgemma_core` `Calibration`."""
    draws: int = 1
    """Noise draws to average over, one denoising step each."""
    seed: int | None = 0
    """Seed of the noise."""
    timeout: float | None = None
    """Most seconds for a request."""

    _set: QuestionSet = PrivateAttr()
    _thresholds: dict[str, float] = PrivateAttr()

    @field_validator("draws", mode="before")
    @classmethod
    def _check_draws(cls, value: Any) -> int:
        return check_draws(value)

    @field_validator("threshold", mode="before")
    @classmethod
    def _plain_threshold(cls, value: Any) -> Any:
        # Pydantic would take True for 1.
        if isinstance(value, Mapping):
            return {name: plain(number) for name, number in value.items()}
        value = plain(value)
        if isinstance(value, bool):
            raise ValueError(f"threshold={value!r}: must be a probability from 0 to 1")
        return value

    @model_validator(mode="after")
    def _check_diffusiongemma_questions(self) -> Self:
        self._set = question_set(self.questions)
        self._thresholds = thresholds_by_name(self.threshold, self._set.questions)
        check_calibration(self.calibration)
        check_timeout(self.timeout)
        return self

    def invoke(
        self,
        input: LanguageModelInput | BaseMessage,  # noqa: A002 -- Runnable's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer the questions about one input.

        Args:
            input: a text, messages or a prompt value. Of a single message the text is used.
            config: the run's name, tags, callbacks and other options.
            kwargs: `draws`, `seed`, `timeout`, `calibration`, `threshold`, `include_probabilities` for this call.

        Raises:
            ValueError: a keyword argument or an input that cannot be used.
            DGemmaError: the request failed.
        """
        classifier = self._for_call(kwargs)
        return self._call_with_config(lambda given: classifier._result(classifier.decide(given)), input, config)

    async def ainvoke(
        self,
        input: LanguageModelInput | BaseMessage,  # noqa: A002 -- Runnable's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """:meth:`invoke` without blocking the event loop."""
        classifier = self._for_call(kwargs)

        async def ask(given: LanguageModelInput | BaseMessage) -> Any:
            return classifier._result(await classifier.adecide(given))

        return await self._acall_with_config(ask, input, config)

    def decide(self, context: LanguageModelInput | BaseMessage) -> dict[str, Answer]:
        """The answers with all their probabilities, by name. Without config and callbacks."""
        given = text_or_messages(context)
        prompt = given if isinstance(given, str) else to_engine_messages(given)
        engine = self._engine()
        engine.load()
        with translated_errors():
            return engine.decide(prompt, self._set.questions, **self._settings())

    async def adecide(self, context: LanguageModelInput | BaseMessage) -> dict[str, Answer]:
        """:meth:`decide` without blocking the event loop."""
        given = text_or_messages(context)
        prompt = given if isinstance(given, str) else await ato_engine_messages(given)
        engine = await self._aengine()
        await engine.aload()
        ask = partial(engine.adecide, prompt, self._set.questions, **self._settings())
        with translated_errors():
            return await ask() if self._turns is None else await self._turns.queue(lambda wait: ask(wait=wait))

    def _settings(self) -> dict[str, Any]:
        return {
            "draws": self.draws,
            "seed": self.seed,
            "calibration": self.calibration,
            "timeout": self.timeout,
        }

    def _result(self, answers: dict[str, Answer]) -> Any:
        value = self._set.result(answers, self._thresholds)
        return {"value": value, "answers": answers} if self.include_probabilities else value

    def _for_call(self, kwargs: dict[str, Any]) -> Self:
        """This classifier with a call's own settings, checked like those of the constructor."""
        if not kwargs:
            return self
        reject_unknown(kwargs, _CALL_NAMES, owner=type(self).__name__)
        own = {name: getattr(self, name) for name in self.model_fields_set}
        changed = type(self)(**{**own, **kwargs})
        changed._turns = self._turns
        return changed
