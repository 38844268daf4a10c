"""Several typed questions over one context: what `Engine.decide` asks in one denoising step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from dgemma_core.api.questions import Question, render_options
from dgemma_core.structured.decision_plan import fill_canvases
from dgemma_core.structured.forms import FormWriter

from .context import Context, entity
from .example import Branch, Typed
from .lexicon import Source
from .questions import ask, claim, extract, missing, other_value, sentence, yes_no_question

SPELLED_OUT = 0.4  # share of the questions alone on a canvas that are spelled out in the prompt
ANSWERED = (
    "Does the text answer this question: ",
    "Is the text relevant to the question: ",
    "Can this be answered from the text: ",
)
GRADED = "How well does the text answer this question: "
LEVELS: tuple[dict[str, str], ...] = (
    {"none": "another subject", "weak": "the same subject, another fact", "full": "the answer is there"},
    {"0": "another subject", "1": "the same subject", "2": "it answers the question"},
    {"low": "not about it", "medium": "about it", "high": "answers it"},
)


def holds(source: Source, context: Context) -> Typed:
    """Whether a statement or a value is right."""
    text, truth = yes_no_question(source, context)
    return Question("bool", text), "yes" if truth else "no"


def statement(source: Source, context: Context) -> Typed:
    """Whether a value is right, asked in few words."""
    fact, stated, truth = claim(source, context)
    return Question("bool", f"{fact.entity}, {fact.relation.noun}: {stated}?"), "yes" if truth else "no"


def checks(source: Source, context: Context) -> list[Typed]:
    """Two questions whether the same value is right; a network learns one of them from the other.

    A value at the end of a question is easily compared with what is expected there. A value at the beginning is harder:
    it is read before the rest says what it is compared with.
    """
    fact, stated, truth = claim(source, context)
    e, noun = fact.entity, fact.relation.noun
    first = (
        f"Is {stated} the {noun} of {e}?",
        f"{stated}, the {noun} of {e}?",
        f"{stated}: is it the {noun} of {e}?",
        sentence(fact.relation.check, e, stated),
        f"Is this statement true? {sentence(source.choice(fact.relation.facts), e, stated)}",
    )
    last = (f"{e}, {noun}: {stated}?", f"Is the {noun} of {e} {stated}?", f"The {noun} of {e}: is it {stated}?")
    texts = [source.choice(first), source.choice(last if source.chance(0.7) else first)]
    source.rng.shuffle(texts)
    return [(Question("bool", text[0].upper() + text[1:]), "yes" if truth else "no") for text in texts]


def checked(source: Source, context: Context) -> Typed:
    """One of the two questions of `checks`."""
    return checks(source, context)[0]


def value(source: Source, context: Context) -> Typed:
    """Which of several values is right."""
    fact = source.choice(context.facts)
    values = {fact.value: None}
    for _ in range(source.rng.randint(1, 3)):
        values[other_value(source, context, fact)] = None
    names = list(values)
    source.rng.shuffle(names)
    return Question("choice", ask(source, fact.relation, fact.entity), tuple(names)), fact.value


def which_entity(source: Source, context: Context) -> Typed:
    """Which of the context's entities a fact belongs to."""
    names = [name for name, _ in context.entities]
    if len(names) < 2:
        return holds(source, context)
    fact = source.choice(context.facts)
    source.rng.shuffle(names)
    text = source.choice(
        (f"Whose {fact.relation.noun} is {fact.value}?", f"Which one has the {fact.relation.noun} {fact.value}?")
    )
    # Another entity may share the value; then the question has two answers.
    if sum(f.value == fact.value and f.relation is fact.relation for f in context.facts) > 1:
        return value(source, context)
    return Question("choice", text, tuple(names)), fact.entity


def _any_question(source: Source, context: Context) -> tuple[str, int]:
    """A question and how well the context answers it: 2 fully, 1 the same subject, 0 another subject."""
    if source.chance(0.5):
        return extract(source, context)[0], 2
    name, _, relation = missing(source, context)
    known = any(f.entity == name for f in context.facts)
    return ask(source, relation, name), 1 if known else 0


def _question_of(source: Source, context: Context, level: int) -> str:
    """A question with this level of `_any_question`."""
    while True:
        question, found = _any_question(source, context)
        if found == level:
            return question


def answered(source: Source, context: Context) -> Typed:
    """Whether the context answers a question."""
    question, level = _any_question(source, context)
    return Question("bool", source.choice(ANSWERED) + question), "yes" if level == 2 else "no"


def mentioned(source: Source, context: Context) -> Typed:
    """Whether the context says anything about a subject."""
    truth = source.chance(0.5)
    name = source.choice(context.entities)[0] if truth else entity(source)[0]
    known = truth or any(name == other for other, _ in context.entities)
    return Question("bool", f"Does the text mention {name}?"), "yes" if known else "no"


def graded(source: Source, context: Context) -> Typed:
    """How well the context answers a question, as a level."""
    question, level = _any_question(source, context)
    return _grade(source, GRADED + question, level)


def graded_evenly(source: Source, context: Context) -> Typed:
    """The same with all levels equally often; where half are the highest, a network learns to always answer that."""
    level = source.rng.randrange(3)
    return _grade(source, GRADED + _question_of(source, context, level), level)


def related(source: Source, context: Context) -> Typed:
    """`answered` in the words of `graded`, or `graded` in the words of `answered`.

    A network that can tell whether a question is answered does not use it for levels until it has learned that both
    questions ask the same.
    """
    level = source.rng.randrange(3)
    text = source.choice((*ANSWERED, GRADED)) + _question_of(source, context, level)
    if source.chance(0.4):
        return Question("bool", text), "yes" if level == 2 else "no"
    return _grade(source, text, level)


def _grade(source: Source, text: str, level: int) -> Typed:
    levels = source.choice(LEVELS)
    names = list(levels)
    options = levels if source.chance(0.7) else tuple(names)
    return Question("score", text, options), names[level]


Kinds = tuple[Callable[[Source, Context], Typed], ...]
KINDS: Kinds = (
    holds,
    holds,
    holds,
    value,
    value,
    which_entity,
    answered,
    graded,
)
# Questions about contexts whose entities have the same relations.
BOUND = (holds, holds, checked, statement, which_entity, which_entity, value)
# Questions that are learned late are asked more often.
DRILLED = (
    *KINDS,
    *[holds] * 3,
    *[statement] * 2,
    *[checked] * 4,
    *[which_entity] * 3,
    *[graded_evenly] * 3,
    *[related] * 3,
    *[mentioned] * 2,
)


def decide(source: Source, context: Context, count: int, most: int = 8, kinds: Kinds = DRILLED) -> list[Branch]:
    """Branches that ask one to `most` questions of these kinds each, all about the same context."""
    head = source.choice((None, None, None, "You are a helpful assistant."))
    branches = []
    for _ in range(count):
        wanted = min(most, source.choice((1, 1, 2, 3, 4, 5, 6, 8)))
        asked = checks(source, context)[:wanted] if source.chance(0.3) else []
        asked += [source.choice(kinds)(source, context) for _ in range(wanted - len(asked))]
        source.rng.shuffle(asked)
        branches.append(branch_of(head, context.text, asked))
    return branches


def route(source: Source, count: int) -> list[Branch]:
    """Branches whose context is a request; they ask which option fits it, and whether a given one does."""
    branches = []
    size = source.rng.randint(2, 5)
    topics = list(dict.fromkeys(source.word() if source.chance(0.5) else source.name() for _ in range(size)))
    names = list(dict.fromkeys(source.word() for _ in topics))
    if len(topics) < 2 or len(names) < len(topics):
        return route(source, count)
    form = source.choice(("questions about {t}", "documents about {t}", "useful for {t}", "all about {t}", "{t}"))
    options = {n: form.format(t=t) for n, t in zip(names, topics, strict=True)}
    by_topic = source.chance(0.3)
    for _ in range(count):
        index = source.rng.randrange(len(topics))
        topic = topics[index]
        request = source.choice((
            f"What is {topic}?", f"Tell me about {topic}.", f"How does {topic} work?", f"Who knows {topic}?",
            f"Where can I read about {topic}?", f"I need help with {topic}.", f"What does {topic} cost?",
        ))  # fmt: skip
        text = source.choice(("Which option fits the request?", "Which tool should answer this?", "Where should this go?",
                              "What is this about?"))  # fmt: skip
        choice = Question("choice", text, tuple(topics) if by_topic else options)
        asked: list[Typed] = [(choice, topic if by_topic else names[index])]
        if source.chance(0.5):
            other = source.choice(topics)
            asked.append((Question("bool", f"Is this about {other}?"), "yes" if other == topic else "no"))
            source.rng.shuffle(asked)
        branches.append(branch_of(None, request, asked))
    return branches


def branch_of(system: str | None, context: str, asked: list[Typed]) -> Branch:
    """One branch that asks all of these questions about a context; it is empty where an earlier turn had it."""
    head = [] if system is None else [{"role": "system", "content": system}]
    prompt = f"{context}\n\n{render_options([q for q, _ in asked])}"
    return Branch("decisions", [*head, {"role": "user", "content": prompt}], asked=tuple(asked))


def split_by_canvas(source: Source, branch: Branch, writer: FormWriter, canvas_length: int) -> Iterator[Branch]:
    """Typed questions as the engine asks them, as many as a canvas holds; some lone ones are spelled out."""
    asked = iter(branch.asked)
    for lines in fill_canvases([question for question, _ in branch.asked], writer, canvas_length):
        group = list(islice(asked, len(lines)))
        yield _asking(branch, group, len(group) == 1 and source.chance(SPELLED_OUT))


def _asking(branch: Branch, asked: list[Typed], spelled_out: bool) -> Branch:
    """The same context with some of its questions."""
    *head, last = branch.messages
    context = str(last["content"]).removesuffix(render_options([q for q, _ in branch.asked]))
    options = render_options([q for q, _ in asked], spelled_out)
    messages = [*head, {**last, "content": context + options}]
    return replace(branch, messages=messages, asked=tuple(asked), spelled_out=spelled_out)
