"""The schemas that ``$ref`` points to: by place (``#/...``), by anchor, or by an ``$id`` in the same document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from dgemma_core.api.json_schemas.places import VALUES, pointed

_BASE = "https://schema.invalid/"  # the address of a schema without one


class References:
    """Finds the schemas of one document.

    Args:
        root: the whole schema.

    Attributes:
        root: the schema, in which references from parts with an address of their own are absolute.
    """

    def __init__(self, root: Any) -> None:
        draft = str(root.get("$schema", "")) if isinstance(root, Mapping) else ""
        self._id = "id" if "draft-03" in draft or "draft-04" in draft else "$id"
        self._base = _joined(_BASE, root.get(self._id)) if isinstance(root, Mapping) else _BASE
        self._resources: dict[str, Any] = {}  # schemas by address
        self._anchors: dict[str, Any] = {}  # schemas by address and anchor
        self.root = self._collected(root, self._base)
        self._resources[urldefrag(self._base)[0]] = self.root

    def target(self, reference: Any) -> Any:
        """The schema that a ``$ref`` points to.

        Raises:
            LookupError: it points to no place of the same document.
        """
        if not isinstance(reference, str):
            raise LookupError(f"'$ref' must be a string, not {reference!r}")
        address, fragment = urldefrag(_joined(self._base, reference))
        if fragment and not fragment.startswith("/"):
            if (key := f"{address}#{fragment}") in self._anchors:
                return self._anchors[key]
            raise LookupError(f"'$ref' to {reference!r}: there is no such anchor")
        if address not in self._resources:
            raise LookupError(f"'$ref' to {reference!r}: only places of the same schema (#/... or an $id) can be used")
        try:
            return pointed(self._resources[address], unquote(fragment))
        except LookupError:
            raise LookupError(f"'$ref' to {reference!r}: there is no such place") from None

    def _collected(self, node: Any, base: str) -> Any:
        if isinstance(node, list):
            return [self._collected(item, base) for item in node]
        if not isinstance(node, Mapping):
            return node
        base = _joined(base, node.get(self._id))
        schema = {key: value if key in VALUES else self._collected(value, base) for key, value in node.items()}
        if base != self._base and isinstance(node.get("$ref"), str):
            schema["$ref"] = _joined(base, node["$ref"])
        if isinstance(node.get(self._id), str):
            # An $id that is a fragment is an anchor, before draft 2019-09.
            (self._anchors if urldefrag(base)[1] else self._resources).setdefault(base, schema)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(node.get(keyword), str):
                self._anchors.setdefault(f"{urldefrag(base)[0]}#{node[keyword]}", schema)
        return schema


def _joined(base: str, reference: Any) -> str:
    if not isinstance(reference, str):
        return base
    # Python joins no fragments to addresses like urn:...
    return f"{urldefrag(base)[0]}{reference}" if reference.startswith("#") else urljoin(base, reference)
