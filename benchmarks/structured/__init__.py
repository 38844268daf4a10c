"""Answers to grammars, decisions, infilling and tool calls: `python -m benchmarks.structured [PART ...]`.

Parts are `schemas`, `json`, `decisions`, `infill`, `tools` and `auto`. Without a part, all of them run.

`schemas` and `tools` take a file of JSON lines with `id` (`subset/name`) and `schema`, for example an extract of
JSONSchemaBench. `schemas` asks for an answer to every schema, and `tools` for a call of a tool with that schema. The
embedded checkpoint answers, and the same architecture with random weights. Every answer is parsed and validated with
`jsonschema`. The other parts are tasks of the embedded checkpoint over held-out names.
"""
