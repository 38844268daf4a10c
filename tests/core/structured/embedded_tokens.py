"""The embedded checkpoint's tokenizer, its chat template, and a compiler of grammars for it."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

import dgemma_core
from dgemma_core.chat.template import ChatTemplate
from dgemma_core.structured.alphabet import Alphabet
from dgemma_core.structured.matcher import GrammarCompiler

TOKENIZER = PreTrainedTokenizerFast.from_pretrained(f"{dgemma_core.__path__[0]}/embedded")
TEMPLATE = ChatTemplate(TOKENIZER)
ALPHABET = Alphabet(TOKENIZER, len(TOKENIZER), frozenset({TOKENIZER.eos_token_id, 1}))
COMPILER = GrammarCompiler(ALPHABET)
