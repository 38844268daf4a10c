"""Request -> sequence, on the caller's thread: renders and tokenizes the prompt, checks lengths, makes the guide."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import replace

from dgemma_core.api.grammar import Grammar
from dgemma_core.api.handle import RequestHandle
from dgemma_core.api.load_spec import LoadSpec
from dgemma_core.api.messages import Message
from dgemma_core.api.request import Prompt, Request, Tools
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.chat.template import Rendered
from dgemma_core.chat.tool_names import ToolNames
from dgemma_core.denoise.causal_writer import CausalWriter
from dgemma_core.denoise.denoise_settings import DenoiseSettings
from dgemma_core.denoise.guide import Guide
from dgemma_core.engine.checkpoint_parts import CheckpointParts
from dgemma_core.engine.sequence import Sequence
from dgemma_core.engine.without_effect import tell_temperature
from dgemma_core.engine.writers import EVERY_SOURCE, make_writer
from dgemma_core.errors import ContextOverflowError
from dgemma_core.structured.causal_grammar import CausalGrammar
from dgemma_core.structured.grammar_cursor import GrammarCursor
from dgemma_core.structured.grammar_guide import GrammarGuide
from dgemma_core.structured.hints import string_hints
from dgemma_core.structured.tool_grammar import tool_grammar

# Characters that take about ten milliseconds to tokenize.
_LONG_PROMPT = 20_000


class Admission:
    """Turns requests into sequences. Thread-safe.

    Args:
        parts: of the checkpoint.
        spec: limits the context.
        cancel: weak reference to what a handle's ``cancel`` calls. Each handle gets a strong one, which keeps the
            engine alive while somebody holds a handle.

    Attributes:
        draft_sources: what the drafts of verified answers come from.
    """

    def __init__(
        self, parts: CheckpointParts, spec: LoadSpec, cancel: weakref.ReferenceType[Callable[[RequestHandle], None]]
    ) -> None:
        self.parts = parts
        self.spec = spec
        self.draft_sources = EVERY_SOURCE
        self._cancel = cancel

    @property
    def context_window(self) -> int:
        """Most tokens of prompt plus answer."""
        return self.parts.description.context_window(self.spec.max_context)

    def sequence(self, request: Request) -> Sequence:
        """The sequence of a request.

        Raises:
            ValueError, GrammarError, ContextOverflowError, CheckpointError: as ``Engine.submit``.
        """
        params = request.params
        if params.temperature == 0 and params.seed is None:
            params = replace(params, seed=0)
        prompt = self.render(request.prompt, request.tools, request.thinking)
        room = self.room(len(prompt.ids), params.max_new_tokens)
        names = ToolNames.of(request.tools)
        grammar = answer_grammar(request, names)
        banned = () if grammar is not None or may_call(request) else self.parts.template.call_tokens
        description = self.parts.description
        settings = description.defaults.with_params(params)
        cursor = None if grammar is None else self.grammar_cursor(grammar, room)
        decoding = own = params.decoding_by(description.decoding)
        if cursor is not None:
            decoding = params.decoding_by(description.guided_decoding)
        if decoding != own and params.temperature is None and params.seed is None:
            # Without a temperature this checkpoint's answers repeat. So do those that only their grammar has denoised.
            params = replace(params, seed=0)
        guide = writer = None
        if decoding != "diffusion":
            causal = None if cursor is None else CausalGrammar(cursor)
            writer = make_writer(description, decoding, params, prompt.ids, room, causal, self.draft_sources)
        else:
            tell_temperature(params)
            guide = None if cursor is None else GrammarGuide(cursor)
        return self.rendered_sequence(
            prompt, settings, params, room, guide, request.timeout, names=names, banned=banned, writer=writer
        )

    def rendered_sequence(
        self,
        prompt: Rendered,
        settings: DenoiseSettings,
        params: SamplingParams,
        room: int,
        guide: Guide | None,
        timeout: float | None = None,
        names: ToolNames | None = None,
        writer: CausalWriter | None = None,
        banned: tuple[int, ...] = (),
    ) -> Sequence:
        """A sequence of a rendered prompt.

        Args:
            prompt: token ids and images.
            settings: denoising settings, with defaults filled in.
            params: the request's own settings.
            room: tokens the answer may take, as :meth:`room` gives it.
            guide: steers the sequence's canvases; None for free text.
            timeout: seconds after which the sequence fails.
            names: of the tools; by default they are declared under their own.
            writer: writes the answer in the causal mode; None for an answer that is denoised.
            banned: token ids that the answer never has.
        """
        cancel = self._cancel()
        assert cancel is not None, "the engine has called this, so it is alive"
        return Sequence(
            handle=RequestHandle(cancel),
            prompt=prompt.ids,
            settings=settings,
            max_new_tokens=room,
            detokenizer=Detokenizer(self.parts.description.tokenizer, params.stop, names or ToolNames()),
            seed=params.seed,
            drafts=params.drafts,
            timeout=timeout,
            guide=guide,
            images=[self.parts.images.place(span) for span in prompt.spans],
            writer=writer,
            banned=banned,
        )

    def render(self, prompt: Prompt, tools: Tools = (), thinking: bool = False) -> Rendered:
        """A prompt as token ids, with room for its images.

        Raises:
            ValueError: a token id that the vocabulary does not have, or messages that the chat template refuses.
        """
        if isinstance(prompt, str):
            return Rendered(self.parts.template.text(prompt))
        messages = [item for item in prompt if isinstance(item, Message)]
        if messages:
            self.parts.template_warnings.tell(tools=bool(tools), thinking=thinking)
            marks = self.parts.images if any(message.images for message in messages) else None
            names = ToolNames.of(tools)
            return self.parts.template.render(names.messages(messages), names.tools(tools), marks, thinking)
        tokens = [item for item in prompt if isinstance(item, int)]
        return Rendered(_known(tokens, self.parts.description.vocab_size))

    def room(self, prompt_tokens: int, max_new_tokens: int | None) -> int:
        """Tokens the answer may take.

        Args:
            prompt_tokens: tokens of the rendered prompt.
            max_new_tokens: tokens asked for; None for the checkpoint's default.

        Raises:
            ContextOverflowError: prompt plus answer do not fit the context window.
        """
        window = self.context_window
        wanted = max_new_tokens
        if wanted is None:
            # Nobody asked for this length, so it shrinks to fit a long prompt.
            wanted = max(1, min(self.parts.description.max_new_tokens, window - prompt_tokens))
        if prompt_tokens + wanted > window:
            raise ContextOverflowError(prompt_tokens, wanted, window)
        return wanted

    def grammar_cursor(self, grammar: Grammar, room: int, ends: frozenset[int] | None = None) -> GrammarCursor:
        """A cursor at the beginning of a grammar.

        Args:
            grammar: what the text must fit.
            room: tokens the text may take.
            ends: token ids that end a draft; by default those that end an answer.

        Raises:
            GrammarError: the grammar cannot be used, or its shortest text does not fit ``room``.
        """
        compiler = self.parts.compiler
        return GrammarCursor(compiler.matcher(grammar), compiler.alphabet, string_hints(grammar.source), room, ends)


def is_quick(request: Request) -> bool:
    """Whether a request takes a few milliseconds to queue: it has no grammar, tools or images, and no long prompt."""
    if request.tools or request.params.grammar is not None:
        return False
    if isinstance(request.prompt, str):
        return len(request.prompt) < _LONG_PROMPT
    messages = request.messages
    if any(message.images for message in messages):
        return False
    return sum(len(message.text) for message in messages) < _LONG_PROMPT


def may_call(request: Request) -> bool:
    """Whether an answer that no grammar holds may call tools.

    A chat may only call tools that it declares. Raw text and token ids may declare tools in their own words.
    """
    return request.tool_choice != "none" and not request.messages


def answer_grammar(request: Request, names: ToolNames | None = None) -> Grammar | None:
    """The grammar that an answer must fit, by the request's own grammar and its tools. None for free text.

    Args:
        request: what is asked.
        names: of its tools; made from them if not given.

    Raises:
        ValueError: a choice of tools that contradicts the grammar.
        GrammarError: a tool's schema that cannot be enforced.
    """
    names = names or ToolNames.of(request.tools)
    params, tools, choice = request.params, names.tools(request.tools), request.tool_choice
    choice = None if choice is None else names.choice(choice)
    if params.grammar is not None:
        calls = tools if tools and choice != "none" else ()
        if not calls and not request.thinking:
            return params.grammar
        if calls and choice not in (None, "auto"):
            raise ValueError(f"tool_choice={choice!r}: an answer that must call a tool cannot fit a grammar as well")
        return tool_grammar(calls, "auto", request.parallel_tool_calls, params.grammar)
    if not tools and choice in (None, "none", "auto"):
        return None
    return tool_grammar(tools, choice or "auto", request.parallel_tool_calls)


def _known(tokens: Seq[int], vocab_size: int) -> list[int]:
    for token in tokens:
        if token >= vocab_size:
            raise ValueError(f"prompt holds {token!r}: must be a Message or a token id below {vocab_size}")
    return list(tokens)
