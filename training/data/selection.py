"""Choosing the right tool, index or label by its description."""

from __future__ import annotations

import json

from .example import Branch
from .lexicon import LETTERS, Source

SELECTOR = (
    "Some choices are given below. It is provided in a numbered list (1 to {n}), where each item in the list corresponds "
    "to a summary.\n---------------------\n{c}\n---------------------\nUsing only the choices above and not prior "
    "knowledge, return the choice that is most relevant to the question: '{q}'\n"
)
SELECTOR_JSON = (
    "\n\nThe output should be ONLY JSON formatted as a JSON instance.\n\nHere is an example:\n[\n    {\n        choice: 1,\n"
    '        reason: "<insert reason for choice>"\n    },\n    ...\n]\n'
)


def selection_branches(source: Source, count: int) -> list[Branch]:
    """Branches that share one list of described options."""
    size = source.rng.randint(2, 5)
    topics = [source.word() if source.chance(0.5) else source.name() for _ in range(size)]
    forms = (
        "Useful for questions about {t}.",
        "Answers questions about {t}.",
        "Documents about {t}.",
        "All about {t}.",
        "{t}",
    )
    form = source.choice(forms)
    texts = [form.format(t=t) for t in topics]
    style = source.choice(("selector", "selector_json", "letters", "names"))
    names = list(dict.fromkeys(f"{source.word()}_{source.choice(('tool', 'index', 'engine'))}" for _ in topics))
    if len(names) < size or len(set(topics)) < size:
        return selection_branches(source, count)
    branches = []
    for index in source.rng.sample(range(size), min(count, size)):
        topic = topics[index]
        question = source.choice((
            f"What is {topic}?", f"Tell me about {topic}.", f"How does {topic} work?", f"Who knows {topic}?",
            f"Where can I read about {topic}?", f"What do the {topic} documents say?",
        ))  # fmt: skip
        if style.startswith("selector"):
            listed = "\n\n".join(f"({i}) {t}" for i, t in enumerate(texts, 1))
            prompt = SELECTOR.format(n=size, c=listed, q=question)
            if style == "selector_json":
                prompt += SELECTOR_JSON
                reason = f"It is about {topic}."
                answer = json.dumps([{"choice": index + 1, "reason": reason}], ensure_ascii=False)
            else:
                prompt += "Answer with the number."
                answer = str(index + 1)
        elif style == "letters":
            listed = "\n".join(f"{letter}) {t}" for letter, t in zip(LETTERS, texts, strict=False))
            prompt = f"Which option fits the question?\n{listed}\nQuestion: {question}\nAnswer with the letter."
            answer = LETTERS[index]
        else:
            listed = "\n".join(f"- {n}: {t}" for n, t in zip(names, texts, strict=True))
            prompt = f"Choose the tool that fits the question.\n{listed}\nQuestion: {question}\nAnswer with the name."
            answer = names[index]
        branches.append(Branch("decisions", [{"role": "user", "content": prompt}], answer))
    return branches
