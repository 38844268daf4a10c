"""``DiffusionGemmaRouter``: chooses the tools and the model of a request in one denoising step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel

from dgemma_core.api.questions import Answer, Question
from dgemma_integrations.langchain.classifier import ClassifierOptions, DiffusionGemmaClassifier
from dgemma_integrations.langchain.middleware.last_said import last_said
from dgemma_integrations.shared.checks import check_probability

# The question's name in the classifier.
_ASKED = "asked"


@dataclass(frozen=True)
class Route:
    """One route of a request.

    Args:
        description: the requests that belong here, in words that the model reads.
        tools: names of the agent's tools that the request may use; None means all.
        model: the model that answers; None means the agent's own.
    """

    description: str
    tools: Sequence[str] | None = None
    model: BaseChatModel | None = None


class DiffusionGemmaRouter(AgentMiddleware[AgentState[Any], Any, Any]):
    """Chooses the tools and the model for the last user message, before each call of the model.

    Args:
        routes: 2 to 26 routes by name.
        question: the question that the routes' names answer.
        fallback: the route of a message if no route is as probable as ``min_confidence``; None leaves the request as
            it is.
        min_confidence: probability from 0 to 1.
        settings: of the :class:`DiffusionGemmaClassifier` that decides: ``engine``, ``model``, ``calibration`` ...

    Raises:
        ValueError: routes or settings that cannot be used; the message names them. At a request, a route with a tool
            that the agent does not have.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        question: str = "Which kind of request is the text above?",
        fallback: str | None = None,
        min_confidence: float = 0.0,
        **settings: Unpack[ClassifierOptions],
    ) -> None:
        super().__init__()
        for name, route in routes.items():
            if not isinstance(route, Route):
                raise ValueError(f"routes[{name!r}]={route!r}: must be a Route")
        if fallback is not None and fallback not in routes:
            raise ValueError(f"fallback={fallback!r}: must be one of the routes {', '.join(routes)}")
        self.routes = dict(routes)
        self.fallback = fallback
        self.min_confidence = check_probability("min_confidence", min_confidence)
        options = {name: route.description for name, route in routes.items()}
        self.classifier = DiffusionGemmaClassifier(
            questions={_ASKED: Question("choice", question, options)}, **settings
        )

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Route the request, then call the model."""
        said = last_said(request.messages)
        return handler(self._routed(request, self.classifier.decide(said)[_ASKED]) if said else request)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """:meth:`wrap_model_call` without blocking the event loop."""
        said = last_said(request.messages)
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


def _tool_name(tool: Any) -> str:
    if isinstance(tool, Mapping):
        return str(tool.get("function", tool).get("name", ""))
    return str(tool.name)
