"""The description that package indexes show: the README without its links into the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"!?\[([^\]]+)\]\((?!https?:)[^)\s]+\)")
_NOTE = (
    "> This is the README of the source. The commands with `make` and the folders that it names need the source; its "
    "pages are the files in `docs/` there.\n\n"
)


class Description(MetadataHookInterface):
    """Sets ``readme``. A relative link leads nowhere on an index's page, so only its text is kept."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling when it builds the metadata."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        title, rest = text.split("\n\n", 1)
        linkless = _RELATIVE_LINK.sub(r"\1", rest)
        metadata["readme"] = {"content-type": "text/markdown", "text": f"{title}\n\n{_NOTE}{linkless}"}
