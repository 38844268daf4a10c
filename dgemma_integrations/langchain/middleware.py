"""Middleware for ``create_agent`` that decides in one denoising step: which way a request goes, what is let through.

Needs the package ``langchain``; nothing else in this integration does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse, hook_config
except ImportError as error:
    raise ImportError(
        "dgemma_integrations.langchain.middleware needs the package langchain: pip install 'langchain>=1,<2'"
    ) from error
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from pydantic import BaseModel

from dgemma_core.api.questions import Question
from dgemma_core.errors import DGemmaError
from dgemma_integrations.langchain.classifier import DiffusionGemmaClassifier
from dgemma_integrations.shared.checks import check_probability

if TYPE_CHECKING:
    from langgraph.runtime import Runtime

    from dgemma_core.api.questions import Answer

Checked = Literal["input", "output", "both"]
OnViolation = Literal["end", "raise"]
# Of the question's name in the classifier.
_ASKED = "asked"


class GuardViolationError(DGemmaError):
    """A guard with ``on_violation="raise"`` let something not pass.

    Attributes:
        question: that was answered with yes.
        probability: of yes.
        checked: ``input`` or ``output``.
    """

    def __init__(self, question: str, probability: float, checked: str) -> None:
        self.question, self.probability, self.checked = question, probability, checked
        super().__init__(f"the {checked} was stopped: {question!r} is answered yes (probability {probability:.3f})")

    def __reduce__(self) -> tuple[type[GuardViolationError], tuple[str, float, str]]:
        return type(self), (self.question, self.probability, self.checked)


@dataclass(frozen=True)
class Route:
    """One way a request may go.

    Args:
        description: what belongs here; the model reads it.
        tools: names of the agent's tools that are left; None leaves all of them.
        model: that answers; None is the agent's own.
    """

    description: str
    tools: Sequence[str] | None = None
    model: BaseChatModel | None = None


class DiffusionGemmaRouter(AgentMiddleware[AgentState[Any], Any, Any]):
    """Chooses, before each call of the model, which tools and which model the last user message gets.

    Args:
        routes: 2 to 26 ways by name.
        question: that the routes' names answer.
        fallback: the route of messages whose likeliest route is less probable than ``min_confidence``; None leaves
            their requests as they are.
        min_confidence: from 0 to 1.
        settings: of the :class:`DiffusionGemmaClassifier` that decides: ``engine``, ``model``, ``calibration`` ...

    Raises:
        ValueError: routes or settings that cannot be used, naming them. At a request, a route with a tool the agent
            does not have.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        question: str = "Which kind of request is the text above?",
        fallback: str | None = None,
        min_confidence: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        for name, route in routes.items():
            if not isinstance(route, Route):
                raise ValueError(f"routes[{name!r}]={route!r}: must be a Route")
        if fallback is not None and fallback not in routes:
            raise ValueError(f"fallback={fallback!r}: must be one of the routes {', '.join(routes)}")
        check_probability("min_confidence", min_confidence)
        self.routes = dict(routes)
        self.fallback = fallback
        self.min_confidence = min_confidence
        options = {name: route.description for name, route in routes.items()}
        self.classifier = DiffusionGemmaClassifier(
            questions={_ASKED: Question("choice", question, options)}, **settings
        )

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Routes the request, then calls the model."""
        said = _last_said(request.messages)
        return handler(self._routed(request, self.classifier.decide(said)[_ASKED]) if said else request)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """The same on an event loop."""
        said = _last_said(request.messages)
        if said:
            request = self._routed(request, (await self.classifier.adecide(said))[_ASKED])
        return await handler(request)

    def _routed(self, request: ModelRequest[Any], answer: Answer) -> ModelRequest[Any]:
        sure = answer.confidence >= self.min_confidence
        name = str(answer.value) if sure else self.fallback
        if name is None:
            return request
        route = self.routes[name]
        if route.tools is not None:
            by_name = {_tool_name(tool): tool for tool in request.tools}
            missing = [tool for tool in route.tools if tool not in by_name]
            if missing:
                raise ValueError(f"routes[{name!r}]: the agent has no tool {missing[0]!r}, only {', '.join(by_name)}")
            request = request.override(tools=[by_name[tool] for tool in route.tools])
        return request if route.model is None else request.override(model=route.model)


class DiffusionGemmaGuard(AgentMiddleware[AgentState[Any], Any, Any]):
    """Asks a yes-or-no question about what comes in or goes out; yes is a violation.

    Args:
        question: such as "Does the text ask for medical advice?".
        check: ``input`` (the last user message, before anything runs), ``output`` (an answer without tool calls, and a
            structured response) or ``both``.
        threshold: probability of yes from which it is a violation.
        on_violation: ``end`` answers with ``message`` in place of the model; ``raise`` raises GuardViolationError.
        message: the answer then.
        name: of the middleware; an agent with several guards needs a name for each.
        settings: of the :class:`DiffusionGemmaClassifier` that decides: ``engine``, ``model``, ``calibration`` ...

    Raises:
        ValueError: settings that cannot be used, naming them.
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
        **settings: Any,
    ) -> None:
        super().__init__()
        if check not in get_args(Checked):
            raise ValueError(f"check={check!r}: must be one of {', '.join(get_args(Checked))}")
        if on_violation not in get_args(OnViolation):
            raise ValueError(f"on_violation={on_violation!r}: must be one of {', '.join(get_args(OnViolation))}")
        check_probability("threshold", threshold)
        self.question = question
        self.check = check
        self.threshold = threshold
        self.on_violation = on_violation
        self.message = message
        self._name = name or type(self).__name__
        self.classifier = DiffusionGemmaClassifier(questions={_ASKED: Question("bool", question)}, **settings)

    @property
    def name(self) -> str:
        """Tells this middleware from others of the same agent."""
        return self._name

    @hook_config(can_jump_to=["end"])
    def before_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Checks the last user message."""
        said = self._input(state)
        return self._verdict(self.classifier.decide(said)[_ASKED], "input", None) if said else None

    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """The same on an event loop."""
        said = self._input(state)
        return self._verdict((await self.classifier.adecide(said))[_ASKED], "input", None) if said else None

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Checks the answer."""
        text = self._output(state)
        return self._verdict(self.classifier.decide(text)[_ASKED], "output", state) if text else None

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """The same on an event loop."""
        text = self._output(state)
        return self._verdict((await self.classifier.adecide(text))[_ASKED], "output", state) if text else None

    def _input(self, state: AgentState[Any]) -> str | list[BaseMessage]:
        return "" if self.check == "output" else _last_said(state["messages"])

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
        # The same id takes the answer's place.
        own = answered.id if isinstance(answered, AIMessage) else None
        update: dict[str, Any] = {"messages": [AIMessage(self.message, id=own)], "jump_to": "end"}
        if state is not None and state.get("structured_response") is not None:
            update["structured_response"] = None
        return update


def _last_said(messages: Sequence[AnyMessage]) -> str | list[BaseMessage]:
    """The last user message: its text, or the message where it holds more than text."""
    last = next((message for message in reversed(messages) if isinstance(message, HumanMessage)), None)
    if last is None:
        return ""
    parts = [last.content] if isinstance(last.content, str) else last.content
    if all(isinstance(part, str) or part.get("type") == "text" for part in parts):
        return last.text.strip()
    return [last]


def _as_text(value: Any) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)


def _tool_name(tool: Any) -> str:
    if isinstance(tool, Mapping):
        return str(tool.get("function", tool).get("name", ""))
    return str(tool.name)
