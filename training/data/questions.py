"""Questions about one context: extraction, abstaining, lists, decisions and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

from .context import Context, Fact, entity, sentence
from .example import ABSTAIN
from .lexicon import LETTERS, Source
from .relations import BY_KIND, RELATIONS, Relation

Answered = tuple[str, str]  # question, answer


def missing(source: Source, context: Context) -> tuple[str, str, Relation]:
    """An (entity, kind, relation) that the context does not state; often a similar one is there."""
    stated = {(f.entity, f.relation.field) for f in context.facts}
    while True:
        if source.chance(0.65):
            name, kind = source.choice(context.entities)
        else:
            name, kind = entity(source)
        options = [r for r in BY_KIND[kind] if (name, r.field) not in stated]
        near = [r for r in options if any(f.relation is r for f in context.facts)]
        if near and source.chance(0.5):
            options = near
        if options:
            return name, kind, source.choice(options)


def ask(source: Source, relation: Relation, name: str) -> str:
    """A question about a relation of an entity, in one of its phrasings."""
    return sentence(source.choice(relation.questions), name)


def extract(source: Source, context: Context) -> Answered:
    """A question that the context answers."""
    fact = source.choice(context.facts)
    return ask(source, fact.relation, fact.entity), fact.answer


def abstain(source: Source, context: Context) -> Answered:
    """A question that the context does not answer."""
    name, _, relation = missing(source, context)
    return ask(source, relation, name), ABSTAIN


def bullets(facts: list[Fact] | tuple[Fact, ...]) -> str:
    """Facts as a list of canonical sentences."""
    return "\n".join(f"- {f.answer}" for f in facts)


def listing(source: Source, context: Context) -> Answered:
    """All facts, or all facts about one entity."""
    if source.chance(0.45):
        forms = ("Summarize the context.", "List the facts.", "List all facts in the context.", "What does the context say?",
               "Give a summary of the context.", "Summarize the text above as a list.")  # fmt: skip
        return source.choice(forms), bullets(context.facts)
    name = source.choice(context.facts).entity
    forms = ("What does the context say about {e}?", "List the facts about {e}.", "What do you know about {e}?",
           "Summarize what is said about {e}.", "Tell me everything about {e}.")  # fmt: skip
    return source.choice(forms).format(e=name), bullets([f for f in context.facts if f.entity == name])


def claim(source: Source, context: Context) -> tuple[Fact, str, bool]:
    """A fact, a value that may be its own, and whether it is."""
    fact = source.choice(context.facts)
    truth = source.chance(0.5)
    return fact, fact.value if truth else other_value(source, context, fact), truth


def yes_no_question(source: Source, context: Context) -> tuple[str, bool]:
    """A question about a value, or a statement to check, and whether it is true."""
    fact, value, truth = claim(source, context)
    if source.chance(0.25):
        return f"Is this statement true? {sentence(source.choice(fact.relation.facts), fact.entity, value)}", truth
    return sentence(fact.relation.check, fact.entity, value), truth


def yes_no(source: Source, context: Context) -> Answered:
    """A yes/no question about a value."""
    question, truth = yes_no_question(source, context)
    tail = source.choice((" Answer yes or no.", " Answer yes or no.", "\nAnswer with yes or no.", " (yes or no)"))
    return question + tail, "yes" if truth else "no"


def other_value(source: Source, context: Context, fact: Fact) -> str:
    """A wrong value for a fact, often one that the context states of something else."""
    others = [f.value for f in context.facts if f.relation is fact.relation and f.value != fact.value]
    if others and source.chance(0.5):
        return source.choice(others)
    while (value := fact.relation.value(source)) == fact.value:
        pass
    return value


def one_of(source: Source, context: Context) -> Answered:
    """A choice among values, by letter or by name."""
    fact = source.choice(context.facts)
    options = {fact.value}
    for _ in range(source.rng.randint(1, 3)):
        options.add(other_value(source, context, fact))
    values = sorted(options)
    source.rng.shuffle(values)
    question = ask(source, fact.relation, fact.entity)
    if source.chance(0.5):
        style = source.choice(("{}) {}", "{}. {}", "{}: {}"))
        lines = "\n".join(style.format(letter, v) for letter, v in zip(LETTERS, values, strict=False))
        tail = source.choice(("Answer with the letter.", "Answer with one letter.", "Which letter is right?"))
        return f"{question}\n{lines}\n{tail}", LETTERS[values.index(fact.value)]
    style = source.choice(("Choose one of: {}.", "Options: {}. Answer with one option.", "Answer with one of: {}."))
    return f"{question} {style.format(', '.join(values))}", fact.value


def relevance(source: Source, context: Context) -> Answered:
    """Whether the context answers a question, as yes/no or as a score from 0 to 3."""
    roll = source.rng.random()
    if roll < 0.5:
        question, score = extract(source, context)[0], 3
    else:
        name, _, relation = missing(source, context)
        question = ask(source, relation, name)
        score = 1 if any(f.entity == name for f in context.facts) else 0
    if source.chance(0.65):
        form = source.choice((
            "Is the context relevant to the question? Question: {q} Answer yes or no.",
            "Does the context answer this question? {q} Answer yes or no.",
            "Is this passage relevant to the question: {q} Answer yes or no.",
        ))  # fmt: skip
        return form.format(q=question), "yes" if score == 3 else "no"
    form = "Rate from 0 to 3 how well the context answers the question. Question: {q} Answer with a number."
    return form.format(q=question), str(score)


def decision(source: Source, context: Context) -> Answered:
    """One of the three kinds of decisions."""
    kind: Callable[[Source, Context], Answered] = source.choice((yes_no, yes_no, one_of, one_of, relevance))
    return kind(source, context)


def to_json(source: Source, context: Context) -> Answered:
    """Named fields of one entity as compact JSON; a missing field is null."""
    name, kind = source.choice(context.entities)
    facts = [f for f in context.facts if f.entity == name]
    count = source.rng.randint(1, min(4, len(facts)))
    chosen = [(f.relation, f.value) for f in source.rng.sample(facts, count)]
    absent = [r for r in BY_KIND[kind] if all(f.relation is not r for f in facts)]
    if absent and source.chance(0.2):
        chosen.insert(source.rng.randint(0, len(chosen)), (source.choice(absent), ""))
    fields: dict[str, str | int | float | None] = {}
    properties: dict[str, dict[str, str]] = {}
    for relation, value in chosen:
        number = relation.numeric
        fields[relation.field] = (float(value) if "." in value else int(value)) if number and value else value or None
        properties[relation.field] = {"type": "number" if number else "string", "description": relation.noun}
    with_name = source.chance(0.3)
    if with_name:
        plain = name.removeprefix("the ")
        fields = {"name": plain, **fields}
        properties = {"name": {"type": "string"}, **properties}
    answer = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    if source.chance(0.4):
        if source.chance(0.5):
            properties = {k: {"type": v["type"]} for k, v in properties.items()}
        schema = json.dumps({"type": "object", "properties": properties, "required": list(properties)})
        form = source.choice((
            "Extract the facts about {e} as JSON. The JSON must match this schema: {s}",
            "Answer with JSON about {e} that follows this schema:\n{s}",
        ))  # fmt: skip
        return form.format(e=name, s=schema), answer
    form = source.choice((
        "Extract as JSON with the fields {f}: {e}.",
        "Extract the facts about {e} as JSON with the fields {f}.",
        "Give the following fields of {e} as JSON: {f}.",
        "Return JSON with the keys {f} for {e}.",
    ))  # fmt: skip
    return form.format(e=name, f=", ".join(fields)), answer


QUESTIONS: dict[str, Callable[[Source, Context], Answered]] = {
    "qa": extract,
    "abstain": abstain,
    "lists": listing,
    "decisions": decision,
    "json": to_json,
}
assert len({(r.kind, r.field) for r in RELATIONS}) == len(RELATIONS), "a field name must be unique within its kind"
