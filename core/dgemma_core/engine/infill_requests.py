"""A text with holes as a sequence, and the filled text."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import partial

from dgemma_core.api.events import FinishReason, Generation
from dgemma_core.api.infilling import Hole, Infilled
from dgemma_core.api.sampling_params import SamplingParams
from dgemma_core.api.surrogates import without_surrogates
from dgemma_core.chat.detokenizer import Detokenizer
from dgemma_core.chat.template import Rendered
from dgemma_core.engine.admission import Admission
from dgemma_core.engine.sequence import Sequence
from dgemma_core.structured.infill_guide import InfillGuide
from dgemma_core.structured.infill_layout import Filling, check_params, hole_tokens, join, lay_out


@dataclass(frozen=True)
class HoledText:
    """A text with holes, and the request that fills them.

    Attributes:
        pieces: texts and holes.
        sequence: the request.
        fillings: the tokens of each hole; the guide fills them in.
        closing: token ids that close a hole.
        detokenizer: turns the tokens into text.
    """

    pieces: tuple[str | Hole, ...]
    sequence: Sequence
    fillings: list[Filling]
    closing: frozenset[int]
    detokenizer: Detokenizer

    def cancel(self) -> None:
        """Cancel the request."""
        self.sequence.handle.cancel()

    def infilled(self, generation: Generation) -> Infilled:
        """The filled text. Call it when the request has ended."""
        decode = self.detokenizer.decode
        text, holes = join(self.pieces, [decode(hole_tokens(f.tokens, self.closing)) for f in self.fillings])
        reasons = [self._finish_reason(filling, generation.finish_reason) for filling in self.fillings]
        return Infilled(text, holes, generation.usage, reasons)

    def _finish_reason(self, filling: Filling, of_all: FinishReason) -> FinishReason:
        if of_all == "cancelled":
            return of_all
        # Without a grammar, nothing but a closing token tells that the text ends.
        return "length" if filling.cut or (filling.region is None and filling.full(self.closing)) else "stop"


def holed_text(admission: Admission, pieces: Seq[str | Hole], params: SamplingParams) -> HoledText:
    """Lay the pieces out on canvases, and make the request that fills them.

    Raises:
        ValueError: bad pieces or parameters; the message names them.
        GrammarError, ContextOverflowError, CheckpointError: as ``Engine.submit``.
    """
    check_params(params)
    if not isinstance(pieces, str):
        pieces = tuple(map(without_surrogates, pieces))
    description = admission.parts.description
    begin = [] if description.tokenizer.bos_token_id is None else [description.tokenizer.bos_token_id]
    closing = description.end_ids | {description.pad_id}
    layout = lay_out(pieces, begin, admission.parts.template.plain, partial(admission.grammar_cursor, ends=closing))
    length = layout.canvas_length(description.canvas_limit)
    settings = description.defaults.with_params(replace(params, canvas_length=params.canvas_length or length))
    guide = InfillGuide(layout, description.end_id, description.pad_id)
    room = admission.room(len(layout.prompt), layout.room(length))
    params.check_denoising("an infilled text")
    # A text never calls tools. Only a grammar of the caller's own may name their tokens.
    grammars = [piece.grammar for piece in pieces if isinstance(piece, Hole)]
    named = any(grammar is not None and grammar.kind == "lark" for grammar in grammars)
    banned = () if named else admission.parts.template.call_tokens
    rendered = Rendered(layout.prompt)
    sequence = admission.rendered_sequence(rendered, settings, params, room, guide, banned=banned)
    return HoledText(tuple(pieces), sequence, layout.fillings, closing, Detokenizer(description.tokenizer))
