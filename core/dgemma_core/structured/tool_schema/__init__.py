"""A tool's parameters, given as JSON Schema, as rules of a Lark grammar for the arguments of a call."""
