"""Tools' names as the chat template declares them: some names that callers use cannot stand in a call.

A name of a call consists of ASCII letters, digits, ``_``, ``.`` and ``-``. Other names, like ``Page[Item]`` or those
with blanks, are declared under a similar one. Callers see their own names only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dgemma_core.api.messages import Message

_PROPER = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class ToolNames:
    """The declared names of tools.

    Attributes:
        declared: by own name, where the two differ.
    """

    declared: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tools: Sequence[Any]) -> ToolNames:
        """Proper names for all tools that have none.

        Args:
            tools: OpenAI function dicts, or the values of their ``function`` keys.
        """
        names = [name for tool in tools if isinstance(name := _function(tool).get("name"), str) and name.strip()]
        taken = {name for name in names if _PROPER.fullmatch(name)}
        declared: dict[str, str] = {}
        for name in dict.fromkeys(names):
            if name not in taken:
                declared[name] = _unused(_similar(name), taken)
                taken.add(declared[name])
        return cls(declared)

    def tools(self, tools: Iterable[Any]) -> list[Any]:
        """The tools under their declared names."""
        return [self._tool(tool) for tool in tools]

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with the declared names of the tools that they call and answer."""
        if not self.declared:
            return list(messages)
        return [
            replace(
                message,
                name=None if message.name is None else self.choice(message.name),
                tool_calls=tuple(replace(call, name=self.choice(call.name)) for call in message.tool_calls),
            )
            for message in messages
        ]

    def choice(self, name: str) -> str:
        """The declared name of a tool; a name that needs none stays as it is."""
        return self.declared.get(name, name)

    def own(self, name: str) -> str:
        """The caller's name of a declared tool."""
        return next((own for own, declared in self.declared.items() if declared == name), name)

    def _tool(self, tool: Any) -> Any:
        function = _function(tool)
        name = function.get("name")
        if not isinstance(name, str) or name not in self.declared:
            return tool
        renamed = {**function, "name": self.declared[name]}
        return {**tool, "function": renamed} if "function" in tool else renamed


def _function(tool: Any) -> Mapping[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else {}
    return function if isinstance(function, Mapping) else {}


def _similar(name: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", plain).strip("_") or "tool"


def _unused(name: str, taken: set[str]) -> str:
    number, tried = 2, name
    while tried in taken:
        tried, number = f"{name}_{number}", number + 1
    return tried
