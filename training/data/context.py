"""Contexts: passages of facts about entities, and the prompt frames that frameworks put around them."""

from __future__ import annotations

from dataclasses import dataclass

from .lexicon import Source
from .relations import BY_KIND, KINDS, Relation


@dataclass(frozen=True)
class Fact:
    """One fact, as it is written (`text`) and as it is answered (`answer`)."""

    entity: str
    kind: str
    relation: Relation
    value: str
    text: str

    @property
    def answer(self) -> str:
        """The canonical full sentence."""
        return sentence(self.relation.answer, self.entity, self.value)


@dataclass(frozen=True)
class Context:
    """Facts in the order of the document, and the text that states them."""

    facts: tuple[Fact, ...]
    entities: tuple[tuple[str, str], ...]  # (entity, kind)
    text: str


def sentence(template: str, entity: str, value: str = "") -> str:
    """Fills a template and starts it with a capital letter."""
    text = template.format(e=entity, v=value)
    return text[0].upper() + text[1:]


def entity(source: Source) -> tuple[str, str]:
    """A new entity with its article, and its kind."""
    roll = source.rng.random()
    if roll < 0.14:
        return source.full_name(), "person"
    if roll < 0.26:
        return source.company(), "company"
    if roll < 0.7:
        return f"the {source.name()} {source.choice(KINDS)}", "thing"
    if roll < 0.85:
        return f"the {source.word()} {source.choice(KINDS)}", "thing"
    return f"the {source.name()} {source.word()}", "thing"


def make_fact(source: Source, name: str, kind: str, relation: Relation) -> Fact:
    """A fact with a fresh value, written in one of the relation's forms."""
    value = relation.value(source)
    return Fact(name, kind, relation, value, sentence(source.choice(relation.facts), name, value))


# Relations whose values are mostly one token each.
SHORT_VALUES = tuple(
    r for r in BY_KIND["thing"] if r.value in (Source.colour, Source.day, Source.material, Source.word)
)

# Relations whose wrong values the model was slow to tell from right ones.
HARD_VALUES = ("hours", "part", "password", "day", "station", "supplier", "owner", "speed", "keeper", "code", "rooms")


def make_context(source: Source, count: int, short: bool = False) -> Context:
    """`count` facts about one or more entities, often with the same relation of another entity as a distractor.

    With `short`, entities and values take one or two tokens each.
    """
    rng = source.rng
    entities = [
        (f"the {source.word()} {source.choice(KINDS)}", "thing") if short else entity(source)
        for _ in range(max(1, rng.randint((count + 1) // 3, (count + 1) // 2 + 1)))
    ]
    facts: list[Fact] = []
    used: set[tuple[str, str]] = set()
    relation: Relation | None = None
    for _ in range(count * 3):
        if len(facts) == count:
            break
        name, kind = source.choice(entities)
        if relation is None or relation.kind != kind or source.chance(0.6):
            relation = source.choice(SHORT_VALUES if short else BY_KIND[kind])
        if (name, relation.field) in used:
            relation = None
            continue
        used.add((name, relation.field))
        facts.append(make_fact(source, name, kind, relation))
    if source.chance(0.5):
        facts.sort(key=lambda f: entities.index((f.entity, f.kind)))
    present = tuple(e for e in entities if any(f.entity == e[0] for f in facts))
    return Context(tuple(facts), present, passages(source, facts))


def make_alike(source: Source) -> Context:
    """The same few relations of two to four entities, so that only the entity tells a right value from a wrong one."""
    kind = source.choice(("thing", "thing", "thing", "person", "company"))
    entities: list[tuple[str, str]] = []
    wanted = source.rng.randint(2, 4)
    while len(entities) < wanted:
        drawn = entity(source)
        if drawn[1] == kind:
            entities.append(drawn)
    weights = [3 if relation.field in HARD_VALUES else 1 for relation in BY_KIND[kind]]
    relations = dict.fromkeys(source.rng.choices(BY_KIND[kind], weights, k=source.rng.randint(1, 3)))
    facts = [make_fact(source, name, kind, relation) for name, kind in entities for relation in relations]
    if source.chance(0.5):
        source.rng.shuffle(facts)
    return Context(tuple(facts), tuple(entities), passages(source, facts))


def passages(source: Source, facts: list[Fact]) -> str:
    """Facts as one to four passages, some with a title or a metadata line."""
    parts = min(len(facts), source.choice((1, 1, 2, 3, 4)))
    cuts = sorted(source.rng.sample(range(1, len(facts)), parts - 1))
    header = source.choice(("", "", "", "", "title", "file_path", "source"))
    glue = "\n" if source.chance(0.1) else " "
    chunks = []
    for begin, end in zip([0, *cuts], [*cuts, len(facts)], strict=True):
        text = glue.join(f.text for f in facts[begin:end])
        if header == "title":
            text = f"{source.word().capitalize()} {source.word()}\n{text}"
        elif header:
            text = f"{header}: {source.word()}.{source.choice(('txt', 'md', 'pdf'))}\n\n{text}"
        chunks.append(text)
    return "\n\n".join(chunks)


@dataclass(frozen=True)
class Frame:
    """A prompt frame: optional system text and a user text with `{c}` (context) and `{q}` (question)."""

    user: str
    system: str | None = None

    def messages(self, context: str, question: str) -> list[dict[str, str]]:
        """The chat messages of one question."""
        fill = {"{c}": context, "{q}": question}
        head = [] if self.system is None else [{"role": "system", "content": _fill(self.system, fill)}]
        return [*head, {"role": "user", "content": _fill(self.user, fill)}]


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(key, value)
    return text


EXPERT = (
    "You are an expert Q&A system that is trusted around the world.\nAlways answer the query using the provided context "
    "information, and not prior knowledge.\nSome rules to follow:\n1. Never directly reference the given context in your "
    "answer.\n2. Avoid statements like 'Based on the context, ...' or 'The context information ...' or anything along "
    "those lines."
)
_LINE = "---------------------"
TEXT_QA = (
    f"Context information is below.\n{_LINE}\n{{c}}\n{_LINE}\nGiven the context information and not prior knowledge, "
    "answer the query.\nQuery: {q}\nAnswer: "
)
TREE_SUMMARIZE = (
    f"Context information from multiple sources is below.\n{_LINE}\n{{c}}\n{_LINE}\nGiven the information from multiple "
    "sources and not prior knowledge, answer the query.\nQuery: {q}\nAnswer: "
)
ASSISTANT = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question. If you don't know the answer, just say that you don't know. Use three sentences maximum and keep the "
    "answer concise."
)
STUFF = (
    "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say that "
    "you don't know, don't try to make up an answer.\n\n{c}\n\nQuestion: {q}\nHelpful Answer:"
)
FRAMES: list[tuple[float, Frame]] = [
    (3, Frame(TEXT_QA)),
    (3, Frame(TEXT_QA, EXPERT)),
    (1, Frame(TREE_SUMMARIZE)),
    (1, Frame(TREE_SUMMARIZE, EXPERT)),
    (2, Frame("Answer the question based only on the following context:\n{c}\n\nQuestion: {q}")),
    (1, Frame("Answer the question based only on the following context:\n\n{c}\n\nQuestion: {q}\n")),
    (2, Frame(STUFF)),
    (1, Frame("Question: {q}", "Answer using only this context:\n{c}")),
    (1.5, Frame("{q}", ASSISTANT + "\n\n{c}")),
    (1, Frame("{q}", "Use the given context to answer the question.\n\nContext: {c}")),
    (1, Frame(ASSISTANT + "\nQuestion: {q}\nContext: {c}\nAnswer:")),
    (3, Frame("{c}\n\n{q}")),
    (1, Frame("Context:\n{c}\n\nQuestion: {q}")),
    (1, Frame("Context: {c}\n\nQuestion: {q}\n\nAnswer:")),
    (1, Frame("{c}\n\n{q}", "You are a helpful assistant.")),
    (1, Frame("{q}\n\n{c}")),
]


def pick_frame(source: Source) -> Frame:
    """A frame, by weight."""
    return source.rng.choices([f for _, f in FRAMES], [w for w, _ in FRAMES])[0]
