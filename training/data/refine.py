"""LlamaIndex's refine prompts: an existing answer and new context."""

from __future__ import annotations

from .context import Context
from .example import ABSTAIN, Branch
from .lexicon import Source
from .questions import abstain, extract

PLAIN = (
    "The original query is as follows: {q}\nWe have provided an existing answer: {a}\nWe have the opportunity to refine "
    "the existing answer (only if needed) with some more context below.\n------------\n{c}\n------------\nGiven the new "
    "context, refine the original answer to better answer the query. If the context isn't useful, return the original "
    "answer.\nRefined Answer: "
)
CHAT = (
    "You are an expert Q&A system that strictly operates in two modes when refining existing answers:\n1. **Rewrite** an "
    "original answer using the new context.\n2. **Repeat** the original answer if the new context isn't useful.\nNever "
    "reference the original answer or context directly in your answer.\nWhen in doubt, just repeat the original answer.\n"
    "New Context: {c}\nQuery: {q}\nOriginal Answer: {a}\nNew Answer: "
)


def refine(source: Source, context: Context, count: int) -> list[Branch]:
    """Branches that rewrite the existing answer from the context, or repeat it."""
    template = CHAT if source.chance(0.6) else PLAIN
    branches = []
    for _ in range(count if template is CHAT else 1):
        if source.chance(0.6):
            question, answer = extract(source, context)
            existing = ABSTAIN if source.chance(0.7) else extract(source, context)[1]
        else:
            question, _ = abstain(source, context)
            other = Context(context.facts, context.entities, "")
            existing = answer = ABSTAIN if source.chance(0.4) else extract(source, other)[1]
        text = template.replace("{c}", context.text).replace("{q}", question).replace("{a}", existing)
        branches.append(Branch("qa", [{"role": "user", "content": text}], answer))
    return branches
