"""``ChatDiffusionGemma``: a block-diffusion model as a LangChain chat model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from dgemma_integrations.langchain.bound import BoundChat
from dgemma_integrations.langchain.chat_answers import ChatAnswers
from dgemma_integrations.langchain.profile import model_profile
from dgemma_integrations.langchain.schemas import openai_tool
from dgemma_integrations.langchain.structured import structured
from dgemma_integrations.shared.keywords import reject_unknown
from dgemma_integrations.shared.on_length import OnLength, check_on_length
from dgemma_integrations.shared.tool_use import tool_choice as normal_choice

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile


class ChatDiffusionGemma(ChatAnswers):
    r"""DiffusionGemma in this process, as a chat model.

    Model objects are cheap: they hold settings, not weights. All objects with the same load settings share one engine,
    which reads the weights at the first request and computes all concurrent requests together.

    Setup:
        ```bash
        pip install "dgemma[langchain]"
        ```

    Key init args — completion params:
        max_tokens, temperature, seed, stop, ...: `temperature`, and the fields of `dgemma_core.SamplingParams`, with
            `max_tokens` for `max_new_tokens`. `None` means the checkpoint's own default. A call's own `stop` replaces
            the object's.

    Key init args — engine params:
        model, device, dtype, ...: the fields of `dgemma_core.LoadSpec`: which weights, where and how.
        engine: a `dgemma_core` engine to use instead. It is not serialised. A pickled model finds its engine again by
            the load settings. A model with an engine of `Engine.from_model` cannot be pickled.
        timeout: most seconds for a request.
        on_draft: called with what the canvas reads after every denoising step.
        draft_events: also send the canvas as an event of `stream_events(version="v3")`.
        parallel_tool_calls: whether one answer may hold several tool calls.
        on_length: `"warn"` or `"raise"` if a structured answer was cut for want of room.
        thinking: ask the model to think before it answers. Its thoughts come as reasoning blocks.

    Unknown keyword arguments raise a `ValueError`, here and at every call.

    Instantiate:
        ```python
        from dgemma_integrations.langchain import ChatDiffusionGemma

        llm = ChatDiffusionGemma(model="embedded", max_tokens=64, seed=1)
        ```

    Invoke:
        ```python
        context = "Mira Vale keeps the lighthouse at Stonehaven."
        llm.invoke([("system", "Answer from the context."), ("human", f"{context}\n\nWho keeps the lighthouse?")])
        ```

    Stream:
        Text comes as soon as it can no longer change: a few tokens at a time with `decoding="verified"`, a canvas at a
        time with `"diffusion"`. The last chunk holds usage and metadata.

        ```python
        for chunk in llm.stream("Who keeps the lighthouse?"):
            print(chunk.text, end="", flush=True)
        ```

    Async:
        Native: the answer does not block a thread, and cancelling the task ends the request.

        ```python
        await llm.ainvoke("Who keeps the lighthouse?")
        await llm.abatch(["Who keeps the lighthouse?", "Where is it?"])  # shares forward passes
        ```

    Token usage:
        ```python
        llm.invoke("Hello").usage_metadata
        # {"input_tokens": 14, "output_tokens": 5, "total_tokens": 19, "input_token_details": {"cache_read": 0},
        #  "output_token_details": {"reasoning": 0}}
        ```

    Tool calls and structured output:
        A call always fits its tool's schema. A structured answer always fits its schema.

        ```python
        llm.bind_tools([get_weather], tool_choice="any").invoke("What is the weather in Zonel?").tool_calls
        llm.with_structured_output(Bridge).invoke("...")  # a Bridge
        ```

    Response metadata:
        ```python
        llm.invoke("Hello").response_metadata
        # {"model_name": "embedded", "model_provider": "diffusiongemma", "finish_reason": "stop", "forward_passes": 2,
        #  "tokens_per_pass": 2.5, "canvases": 1, "denoising_steps": 2, "tokens_per_step": 2.5, "tokens_per_s": 310.2,
        #  "timings": {"queue_s": ..., ...}}
        ```

    Log-probabilities:
        ```python
        llm.invoke("Hello", logprobs=True, top_logprobs=2).response_metadata["logprobs"]["content"][0]
        # {"token": "The", "bytes": [84, 104, 101], "logprob": -0.01, "top_logprobs": [{"token": "The", ...}, ...]}
        ```
    """

    @property
    def _llm_type(self) -> str:
        return "chat-diffusiongemma"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._ls_settings(stop, super()._get_ls_params(stop=stop, **kwargs))

    def _resolve_model_profile(self) -> ModelProfile | None:
        return model_profile(
            self._spec() if self.engine is None else self.engine.spec, allow_image_urls=self.allow_image_urls
        )

    def get_num_tokens_from_messages(
        self,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Tokens of the prompt that the chat template makes of these messages, with tool declarations."""
        declarations = [openai_tool(tool) for tool in tools] if tools else None
        return self._count_messages(self._prompt(messages), declarations, self.thinking)

    def bind(self, **kwargs: Any) -> BoundChat:  # type: ignore[override]
        """A model with settings for every call. `bind_tools` and `with_structured_output` of the result keep them."""
        return BoundChat(bound=self, kwargs=kwargs, config={})

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """A model that may call tools.

        Args:
            tools: in any form that LangChain converts: tools, functions, Pydantic classes, schemas.
            tool_choice: `"auto"` (the default), `"none"`, a call of any tool (`"any"`, `"required"` or `True`), or a
                tool's name, also in OpenAI's form. A call always fits its tool's schema.
            kwargs: `parallel_tool_calls`, `response_format` (the form of an answer without calls), `strict` (refuse
                what cannot be enforced of a schema; by default it is widened, with a warning in the log), and every
                setting of a call.

        Raises:
            ValueError: a choice that names no tool.
            GrammarError: when the model is called, if a tool's schema cannot be enforced.
        """
        declared = [openai_tool(tool) for tool in tools]
        choice = normal_choice(tool_choice, declared)
        given = {"tools": declared} | ({} if choice is None else {"tool_choice": choice})
        return self.bind(**given, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        show_schema: bool | None = None,
        on_length: OnLength | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """A model whose answers are objects of a schema. They always parse and validate.

        Args:
            schema: a Pydantic class, a TypedDict, or a JSON schema or OpenAI function as dict. Objects hold
                declared keys only, unless the schema says otherwise (`extra="allow"`, `additionalProperties`).
            method: `"json_schema"` (JSON that fits the schema), `"function_calling"` (a forced call of a tool with this
                schema) or `"json_mode"` (JSON that fits the schema, or any JSON without one).
            include_raw: return a dict with `raw`, `parsed` and `parsing_error`.
            strict: refuse what cannot be enforced of the schema, or (`False`) widen it, with a warning in the log.
                `None` widens Pydantic classes, whose objects the parser checks, and refuses for other schemas.
            show_schema: whether the model sees a short form of the schema at the end of the user's message; `None`
                means the object's own setting. With `"function_calling"` it always sees the tool.
            on_length: what to do if an answer was cut for want of room: `"warn"` writes to the log, `"raise"` raises
                `AnswerCutError`, which has the cut object as JSON; `None` means the object's own setting. With
                `include_raw` there is no warning, because `raw` has the `finish_reason`, and the error is
                `parsing_error`.
            kwargs: none are known.

        Raises:
            ValueError: an unknown method or keyword argument.
            GrammarError: when the model is called, if the schema cannot be enforced.
            AnswerCutError: when the model is called, with `on_length="raise"`.
        """
        known = ("schema", "method", "include_raw", "strict", "show_schema", "on_length")
        reject_unknown(kwargs, known, owner="with_structured_output")
        settings = {} if show_schema is None else {"show_schema": show_schema}
        on_length = check_on_length(self.on_length if on_length is None else on_length)
        return structured(self, schema, method, include_raw, strict, settings, on_length)
