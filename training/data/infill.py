"""Passages with blanks: the text on both sides is given, and the words between are asked for."""

from __future__ import annotations

from .context import Context, Fact, sentence
from .example import Branch
from .lexicon import Source


def restated(source: Source, fact: Fact) -> str:
    """The fact in another of its relation's forms."""
    forms = [sentence(f, fact.entity, fact.value) for f in fact.relation.facts]
    others = [text for text in forms if text != fact.text]
    return source.choice(others)


def infill(source: Source, context: Context, count: int) -> list[Branch]:
    """Branches that blank out the value of a fact which the passage states once more, before or after the blank."""
    branches = []
    for _ in range(count):
        fact = source.choice(context.facts)
        again = restated(source, fact)
        first, second = (fact.text, again) if source.chance(0.5) else (again, fact.text)
        others = [f.text for f in context.facts if f is not fact]
        source.rng.shuffle(others)
        between, around = others[:1], others[1 : 1 + source.rng.randint(0, 2)]
        blank_first = source.chance(0.75)  # The fact to copy comes after the blank, so only reading both sides helps.
        target = first if blank_first else second
        if target.count(fact.value) != 1:
            continue
        before = around if blank_first else [*around, first, *between]
        after = [*between, second] if blank_first else around[:1]
        at = target.index(fact.value)
        prompt = " ".join([*before, target[:at]])
        tail = target[at + len(fact.value) :] + "".join(f" {t}" for t in after)
        # A blank in front of the value belongs to the value's first token.
        lead = " " if prompt.endswith(" ") else ""
        prompt = prompt.removesuffix(" ")
        room = source.choice((0, 0, source.rng.randint(1, 12)))
        hole = lead + fact.value
        branches.append(Branch("infill", [], hole + tail, raw=prompt, holes=((0, len(hole)),), room=room))
    return branches
