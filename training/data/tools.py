"""Tool calls: declared tools with random names and arguments, the calls, and the sentence made of their results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .example import Branch, Message
from .lexicon import Source

VERBS = (
    "get find compute create send check update delete search list start stop lookup fetch set read count book".split()
)
LETTER_RULES = (
    "{verb}_{noun}",
    "{verb}_{noun}",
    "{noun}_{verb}",
    "{noun}_tool",
    "{noun}_function",
    "{noun}",
    "{verb}{Noun}",
    "{Noun}",
)
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "integer": ("input", "number", "count", "x", "a", "b", "n", "value", "amount", "limit", "age", "id"),
    "number": ("amount", "price", "ratio", "value", "weight", "x", "y"),
    "boolean": ("verbose", "urgent", "active", "force", "public", "dry_run"),
    "string": (
        "name",
        "location",
        "city",
        "query",
        "text",
        "title",
        "customer_name",
        "person",
        "topic",
        "path",
        "item",
    ),
    "enum": ("unit", "mode", "color", "level", "format", "language"),
    "array": ("names", "tags", "items", "cities", "words"),
}


@dataclass(frozen=True)
class Tool:
    """A declared function. `phrase` is what users call it."""

    name: str
    phrase: str
    arguments: tuple[tuple[str, str, tuple[str, ...]], ...]  # (name, type, enum options)
    declaration: dict[str, Any]


KINDS = ("string", "string", "string", "integer", "integer", "integer", "number", "boolean", "enum", "array")
LONG_KINDS = ("array", "array", "array", "string", "string", "integer", "number", "boolean", "enum")


def make_tool(source: Source, count: int | None = None, kinds: tuple[str, ...] = KINDS) -> Tool:
    """A tool with 0-4 arguments of these kinds."""
    verb, noun = source.choice(VERBS), source.word()
    if source.chance(0.25):
        noun = f"{noun}_{source.word()}"
    rule = source.choice(LETTER_RULES)
    name = rule.format(verb=verb, noun=noun, Noun=noun.replace("_", " ").title().replace(" ", ""))
    phrase = noun.replace("_", " ")
    if count is None:
        count = source.choice((0, 1, 1, 1, 1, 2, 2, 3, 4))
    arguments: dict[str, tuple[str, tuple[str, ...]]] = {}
    while len(arguments) < count:
        kind = source.choice(kinds)
        key = source.word() if source.chance(0.4) else source.choice(ARGUMENTS[kind])
        options = tuple(dict.fromkeys(source.word() for _ in range(source.rng.randint(2, 4)))) if kind == "enum" else ()
        arguments[key] = (kind, options)
    properties: dict[str, Any] = {}
    for key, (kind, options) in arguments.items():
        schema: dict[str, Any] = {"type": {"enum": "string"}.get(kind, kind)}
        if kind == "enum":
            schema["enum"] = list(options)
        if kind == "array":
            schema["items"] = {"type": "string"}
        if source.chance(0.4):
            schema["description"] = f"The {key.replace('_', ' ')}."
        properties[key] = schema
    description = source.choice((
        f"{verb.capitalize()} the {phrase}.", f"{verb.capitalize()} the {phrase} for the user.", f"Applies the {phrase} to its input.",
        f"{verb.capitalize()} a {phrase} with the given arguments.", f"The {phrase} of something.", f"Use this for {phrase}.",
    ))  # fmt: skip
    function: dict[str, Any] = {"name": name, "description": description}
    if properties or source.chance(0.5):
        function["parameters"] = {"type": "object", "properties": properties, "required": list(properties)}
    flat = tuple((k, kind, options) for k, (kind, options) in arguments.items())
    return Tool(name, phrase, flat, {"type": "function", "function": function})


def argument_value(source: Source, kind: str, options: tuple[str, ...]) -> Any:
    """A value of an argument's type."""
    rng = source.rng
    if kind == "integer":
        return rng.choice((rng.randint(0, 20), rng.randint(0, 999), rng.randint(1000, 99999)))
    if kind == "number":
        return rng.randint(0, 499) + rng.randint(1, 9) / 10
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "enum":
        return rng.choice(options)
    if kind == "array":
        most = 3 if source.held_out or source.chance(0.7) else 5  # The end of a list is the most frequent mistake.
        return [source.name() if rng.random() < 0.5 else source.word() for _ in range(rng.randint(1, most))]
    if not source.held_out and source.chance(
        0.12
    ):  # Other scripts are forgotten first, so there are more of them than in the evaluation.
        return source.foreign()
    roll = rng.random()
    if roll < 0.3:
        return source.name()
    if roll < 0.45:
        return source.full_name()
    if roll < 0.6:
        return f"{source.name()}, {source.choice('ABCDEFGHKLMNPRSTW')}{source.choice('ABCDEFGHKLMNPRSTW')}"
    if roll < 0.75:
        return source.foreign()
    return source.words(1, 3)


def spoken(value: Any) -> str:
    """A value as a user writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(value) if isinstance(value, list) else str(value)


def request(source: Source, tool: Tool, arguments: dict[str, Any]) -> str:
    """A user's sentence that asks for this call."""
    polite = source.choice(("", "", "", "Please ", "Can you "))
    use = source.choice((f"Use the {tool.name} tool.", "Use the tool.", f"Call {tool.name}.", "Use a tool."))
    if not arguments:
        text = source.choice((f"What is the {tool.phrase}?", f"Run {tool.name}.", f"{use}", f"Tell me the {tool.phrase}.",
                              f"What is the {tool.phrase} now? {use}", f"Show me the {tool.phrase}."))  # fmt: skip
        return polite + text if not polite else polite + text[0].lower() + text[1:]
    values = [spoken(v) for v in arguments.values()]
    if len(arguments) == 1:
        (value,) = values
        key = next(iter(arguments))
        quoted = f'"{value}"' if source.chance(0.2) else value
        return source.choice((
            f"What is the {tool.phrase} of {quoted}?", f"What is the {tool.phrase} for {quoted}?",
            f"What's the {tool.phrase} in {quoted}?", f"What is the value of {tool.name}({value})? {use}",
            f"{polite}{tool.phrase} {quoted}", f"How is the {tool.phrase} in {quoted} today?",
            f"What is the value of the {tool.phrase} of {quoted}? {use}", f"Get the {tool.phrase} of {quoted}.",
            f"Use {tool.name} with {key} {quoted}.", f"{polite}{tool.name} {quoted}",
            f"Create a {tool.phrase} named {quoted}.", f"Tell me the {tool.phrase} of {quoted}. {use}",
            f"I want the {tool.phrase} of {quoted}.",
        ))  # fmt: skip
    pairs = [f"{k} {v}" for k, v in zip(arguments, values, strict=True)]
    joined = ", ".join(pairs[:-1]) + " and " + pairs[-1]
    forms = [f"Use {tool.name} with {joined}.", f"I need the {tool.phrase} with {joined}.", f"{polite}{tool.phrase}: {joined}",
             f"What is the {tool.phrase} for {joined}?", f"{use} The {tool.phrase} has {joined}."]  # fmt: skip
    kinds = [kind for _, kind, _ in tool.arguments]
    if kinds == ["integer", "integer"]:
        forms += [f"What is the {tool.phrase} of {values[0]} and {values[1]}?"] * 2
        forms += [f"What is {values[0]} {tool.phrase} {values[1]}?"]
    return source.choice(forms)


def make_call(source: Source, tool: Tool) -> dict[str, Any]:
    """Arguments for one call of a tool."""
    return {key: argument_value(source, kind, options) for key, kind, options in tool.arguments}


def openai_call(tool: Tool, arguments: dict[str, Any], index: int) -> dict[str, Any]:
    """One entry of an assistant message's `tool_calls`."""
    return {"id": f"call_{index}", "type": "function", "function": {"name": tool.name, "arguments": arguments}}


def make_result(source: Source, tool: Tool, arguments: dict[str, Any]) -> str:
    """What a tool returns: a value, a sentence, or JSON."""
    roll = source.rng.random()
    if roll < 0.45:
        return source.choice((source.number, source.small, source.decimal, source.word, source.name, source.code))()
    if roll < 0.85:
        value = spoken(next(iter(arguments.values()), source.name()))
        return source.choice((
            f"It is {source.word()} in {value}.", f"The {tool.phrase} is {source.number()}.", f"{source.name()} {source.word()} {source.number()}.",
            f"It's {source.small()} degrees and {source.word()} in {value}.", f"Done: {source.word()} {source.word()}.",
        ))  # fmt: skip
    return json.dumps({source.word(): source.choice((source.small(), source.word(), source.name())) for _ in range(2)})


def final_answer(results: list[str]) -> str:
    """The sentence after the tool's response; it repeats sentences and states values."""
    if len(results) == 1:
        return results[0] if results[0].endswith(".") else f"The result is {results[0]}."
    if all(r.endswith(".") for r in results):
        return " ".join(results)
    return f"The results are {' and '.join(r.rstrip('.') for r in results)}."


def small_talk(source: Source) -> tuple[list[Message], str]:
    """A turn that needs no tool."""
    roll = source.rng.random()
    if roll < 0.35:
        hello = source.choice(
            ("Hello", "Hi", "Hello!", "Hi there", "Good morning", "hello", "Hey", "How are you?", "Hi!")
        )
        return [{"role": "user", "content": hello}], "Hello! How can I help you?"
    if roll < 0.55:
        thanks = source.choice(("Thanks!", "Thank you.", "Great, thank you!", "Thanks a lot"))
        return [{"role": "user", "content": thanks}], "You are welcome!"
    if roll < 0.75:
        name = source.name() if source.chance(0.6) else source.full_name()
        first = source.choice((f"My name is {name}.", f"I am {name}.", f"Hi, I'm {name}."))
        if source.chance(0.4):
            return [{"role": "user", "content": first}], f"Hello {name}!"
        ask = source.choice(("What is my name?", "What's my name?", "Who am I?"))
        history: list[Message] = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": f"Hello {name}!"},
        ]
        return [*history, {"role": "user", "content": ask}], f"Your name is {name}."
    if roll < 0.9:
        text = source.words(1, 4)
        ask = source.choice((f"Say {text}.", f"Repeat: {text}", f'Say "{text}".', f"Repeat after me: {text}"))
        return [{"role": "user", "content": ask}], text
    name, colour = source.name(), source.colour()
    return [
        {"role": "user", "content": f"The {name} is {colour}. What color is the {name}?"}
    ], f"The {name} is {colour}."


def topic_call(source: Source) -> tuple[Tool, str, dict[str, Any]]:
    """A form of free text: for `Tell me a story about cats` each field is `the <field> about cats`."""
    noun = source.word()
    fields = list(dict.fromkeys(source.word() for _ in range(source.rng.randint(1, 3))))
    topic = source.word() if source.chance(0.7) else source.name()
    properties = {f: {"type": "string", "description": f"The {f} of the {noun}."} for f in fields}
    name = noun.capitalize() if source.chance(0.7) else noun
    function = {
        "name": name,
        "description": source.choice((f"{noun.capitalize()} to tell user.", f"A {noun}.", f"Write a {noun}.")),
        "parameters": {"type": "object", "properties": properties, "required": fields},
    }
    tool = Tool(name, noun, tuple((f, "string", ()) for f in fields), {"type": "function", "function": function})
    ask = source.choice(
        (f"Tell me a {noun} about {topic}.", f"Write a {noun} about {topic}.", f"Tell me a {noun} about {topic}")
    )
    return tool, ask, {f: f"the {f} about {topic}" for f in fields}


def described_call(source: Source) -> tuple[Tool, str, dict[str, Any]]:
    """Something with a quoted name and a description: `Create a lamp named 'Зоя' (Blue Box) - a small shop`."""
    verb, noun = source.choice(VERBS), source.word()
    keys = (source.choice((f"{noun}_name", "name", "title")), source.choice(("description", "note", "about")))
    value = source.foreign() if source.chance(0.7) else source.full_name()
    about = f"{source.choice(('a', 'the'))} {source.words(1, 3)}"
    gloss = f" ({source.words(1, 2).title()})" if source.chance(0.5) else ""
    mark = source.choice("'\"")
    name = source.choice(("{verb}_{noun}", "{noun}_{verb}", "{word}_{noun}", "{noun}")).format(
        verb=verb, noun=noun, word=source.word()
    )
    properties = {k: {"type": "string", "description": f"The {k.replace('_', ' ')}."} for k in keys}
    description = source.choice((f"Tool for a {noun} with a name.", f"{verb.capitalize()} a {noun}."))
    parameters = {"type": "object", "properties": properties, "required": list(keys)}
    function = {"name": name, "description": description, "parameters": parameters}
    tool = Tool(name, noun, tuple((k, "string", ()) for k in keys), {"type": "function", "function": function})
    ask = f"{source.choice((verb, verb, 'create', 'add')).capitalize()} a {noun} named {mark}{value}{mark}{gloss} - {about}"
    return tool, ask, dict(zip(keys, (value, about), strict=True))


SYSTEMS = (
    None,
    None,
    None,
    "You are a helpful assistant.",
    "You are a helpful assistant. Use tools when needed.",
    "Answer briefly.",
)


def tool_branches(source: Source, count: int, level: float) -> list[Branch]:
    """Branches that share one set of declared tools (level 0..1 widens the set)."""
    if not source.held_out and source.chance(0.15):  # Short calls, in which choosing the tool counts for more.
        tools = [make_tool(source, source.choice((0, 1, 1))) for _ in range(source.rng.randint(2, 4))]
    elif not source.held_out and source.chance(0.25):  # Long calls, with several lists.
        tools = [make_tool(source, source.rng.randint(2, 4), LONG_KINDS) for _ in range(source.rng.randint(1, 2))]
    else:
        tools = [make_tool(source) for _ in range(source.rng.randint(1, 1 + round(3 * level)))]
    roll = source.rng.random()
    topic = topic_call(source) if roll < 0.1 else described_call(source) if roll < 0.2 and not source.held_out else None
    if topic:
        tools[source.rng.randrange(len(tools))] = topic[0]
    system = source.choice(SYSTEMS)
    head: list[Message] = [{"role": "system", "content": system}] if system else []
    declared = [t.declaration for t in tools]
    branches: list[Branch] = []

    def add(messages: list[Message], answer: str = "", calls: list[dict[str, Any]] | None = None) -> None:
        branches.append(Branch("tools", [*head, *messages], answer, calls or [], declared))

    while len(branches) < count:
        roll = source.rng.random()
        if topic and roll < 0.5:
            add([{"role": "user", "content": topic[1]}], calls=[openai_call(topic[0], topic[2], 1)])
            topic = None
            continue
        form = topic[0].name if topic else None
        plain = [t for t in tools if t.name != form]
        if not plain:
            break
        tool = source.choice(plain)
        if roll < 0.14:
            messages, answer = small_talk(source)
            add(messages, answer)
            continue
        arguments = make_call(source, tool)
        history: list[Message] = []
        if level > 0.6 and source.chance(0.12):
            old = source.choice(plain)
            old_arguments = make_call(source, old)
            result = make_result(source, old, old_arguments)
            history = [
                {"role": "user", "content": request(source, old, old_arguments)},
                {"role": "assistant", "content": "", "tool_calls": [openai_call(old, old_arguments, 7)]},
                {"role": "tool", "tool_call_id": "call_7", "name": old.name, "content": result},
                {"role": "assistant", "content": final_answer([result])},
            ]
        calls = [openai_call(tool, arguments, 1)]
        used = [(tool, arguments)]
        text = request(source, tool, arguments)
        if roll > (0.84 if source.held_out else 0.78):
            other = tool if source.chance(0.5) else source.choice(plain)
            other_arguments = make_call(source, other)
            if other is tool and len(tool.arguments) == 1:
                values = [spoken(next(iter(a.values()))) for a in (arguments, other_arguments)]
                word = source.choice(("of", "in", "for"))
                if source.chance(0.5):
                    text = f"What is the {tool.phrase} {word} {values[0]} and {word} {values[1]}?"
                else:
                    text = f"What is the {tool.phrase} {word} {values[0]}, and what is the {tool.phrase} {word} {values[1]}?"
            else:
                text = (
                    f"{text} {source.choice(('And then:', 'Also:', 'And:'))} {request(source, other, other_arguments)}"
                )
            used.append((other, other_arguments))
            calls.append(openai_call(other, other_arguments, 2))
        messages = [*history, {"role": "user", "content": text}]
        if source.chance(0.68):
            add(messages, calls=calls)
            continue
        results = [make_result(source, t, a) for t, a in used]
        replies: list[Message] = [
            {"role": "tool", "tool_call_id": c["id"], "name": c["function"]["name"], "content": r}
            for c, r in zip(calls, results, strict=True)
        ]
        add([*messages, {"role": "assistant", "content": "", "tool_calls": calls}, *replies], final_answer(results))
    return branches
