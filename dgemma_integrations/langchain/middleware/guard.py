"""``DiffusionGemmaGuard``: checks input or output of an agent in one denoising step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel

from dgemma_core.api.questions import Answer, Question
from dgemma_core.errors import DGemmaError
from dgemma_integrations.langchain.classifier import ClassifierOptions, DiffusionGemmaClassifier
from dgemma_integrations.langchain.middleware.last_said import last_said
from dgemma_integrations.shared.checks import check_probability

if TYPE_CHECKING:
    from langgraph.runtime import Runtime

Checked = Literal["input", "output", "both"]
OnViolation = Literal["end", "raise"]
# The question's name in the classifier.
_ASKED = "asked"


class GuardViolationError(DGemmaError):
    """A guard with ``on_violation="raise"`` has found a violation.

    Attributes:
        question: the question that was answered with yes.
        probability: of yes.
        checked: ``input`` or ``output``.
    """

    def __init__(self, question: str, probability: float, checked: str) -> None:
        self.question, self.probability, self.checked = question, probability, checked
        super().__init__(f"the {checked} was stopped: {question!r} is answered yes (probability {probability:.3f})")

    def __reduce__(self) -> tuple[type[GuardViolationError], tuple[str, float, str]]:
        return type(self), (self.question, self.probability, self.checked)


class DiffusionGemmaGuard(AgentMiddleware[AgentState[Any], Any, Any]):
    """Asks a yes-or-no question about an agent's input or output. The answer yes is a violation.

    Args:
        question: for example "Does the text ask for medical advice?".
        check: ``input`` (the last user message, before anything runs), ``output`` (an answer without tool calls, and a
            structured response) or ``both``.
        threshold: probability of yes from which it is a violation.
        on_violation: ``end`` answers with ``message`` in place of the model; ``raise`` raises GuardViolationError.
        message: the answer that ``end`` gives.
        name: of the middleware. In an agent with several guards each needs its own name.
        settings: of the :class:`DiffusionGemmaClassifier` that decides: ``engine``, ``model``, ``calibration`` ...

    Raises:
        ValueError: settings that cannot be used; the message names them.
    """

    def __init__(
        self,
        question: str,
        *,
        check: Checked = "input",
        threshold: float = 0.5,
        on_violation: OnViolation = "end",
        message: str = "I cannot help with that.",
        name: str | None = None,
        **settings: Unpack[ClassifierOptions],
    ) -> None:
        super().__init__()
        if check not in get_args(Checked):
            raise ValueError(f"check={check!r}: must be one of {', '.join(get_args(Checked))}")
        if on_violation not in get_args(OnViolation):
            raise ValueError(f"on_violation={on_violation!r}: must be one of {', '.join(get_args(OnViolation))}")
        self.question = question
        self.check = check
        self.threshold = check_probability("threshold", threshold)
        self.on_violation = on_violation
        self.message = message
        self._name = name or type(self).__name__
        self.classifier = DiffusionGemmaClassifier(questions={_ASKED: Question("bool", question)}, **settings)

    @property
    def name(self) -> str:
        """The name of this middleware, unique in its agent."""
        return self._name

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Check the last user message."""
        said = self._input(state)
        return self._verdict(self.classifier.decide(said)[_ASKED], "input", None) if said else None

    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """:meth:`before_agent` without blocking the event loop."""
        said = self._input(state)
        return self._verdict((await self.classifier.adecide(said))[_ASKED], "input", None) if said else None

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Check the answer."""
        text = self._output(state)
        return self._verdict(self.classifier.decide(text)[_ASKED], "output", state) if text else None

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """:meth:`after_model` without blocking the event loop."""
        text = self._output(state)
        return self._verdict((await self.classifier.adecide(text))[_ASKED], "output", state) if text else None

    def _input(self, state: AgentState[Any]) -> str | list[BaseMessage]:
        return "" if self.check == "output" else last_said(state["messages"])

    def _output(self, state: AgentState[Any]) -> str:
        if self.check == "input":
            return ""
        structured = state.get("structured_response")
        last = state["messages"][-1]
        answered = isinstance(last, AIMessage) and not last.tool_calls
        return _as_text(structured) if structured is not None else last.text if answered else ""

    def _verdict(self, answer: Answer, checked: str, state: AgentState[Any] | None) -> dict[str, Any] | None:
        probability = answer.probabilities["yes"]
        if probability < self.threshold:
            return None
        if self.on_violation == "raise":
            raise GuardViolationError(self.question, probability, checked)
        answered = state["messages"][-1] if state is not None else None
        # A message with the same id replaces the answer.
        own = answered.id if isinstance(answered, AIMessage) else None
        update: dict[str, Any] = {"messages": [AIMessage(self.message, id=own)], "jump_to": "end"}
        if state is not None and state.get("structured_response") is not None:
            update["structured_response"] = None
        return update


def _as_text(value: Any) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)
