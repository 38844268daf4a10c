"""Grammar-true output, decisions, infilling and tool calls: `python -m benchmarks.structured [PART ...]`.

Parts are `schemas`, `json`, `decisions`, `infill`, `tools` and `auto`; all of them if none is named.

`schemas` and `tools` take a file of JSON lines with `id` (`subset/name`) and `schema`, such as an extract of
JSONSchemaBench, and have every schema answered, or called as a tool's, by the embedded checkpoint and by the same
architecture with random weights; every answer is parsed and validated with `jsonschema`. The others ask tasks of the
embedded checkpoint over held-out names.
"""
