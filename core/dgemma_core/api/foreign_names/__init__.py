"""Other libraries' names of a setting: which are accepted, and what to write instead of the others.

The names are keyword arguments of model classes and their calls, and keys of their dicts of options (``model_kwargs``,
``generate_kwargs``, ``options``). The docs' tables and the errors for unknown keyword arguments come from here. For a
name that becomes a setting of ours, delete it here.
"""

from __future__ import annotations

from collections.abc import Mapping

from dgemma_core.api.foreign_names.answers import ANSWERS
from dgemma_core.api.foreign_names.counterpart import Counterpart
from dgemma_core.api.foreign_names.loading import LOADING
from dgemma_core.api.foreign_names.sampling import SAMPLING
from dgemma_core.api.foreign_names.services import SERVICES

COUNTERPARTS: tuple[Counterpart, ...] = (*LOADING, *ANSWERS, *SAMPLING, *SERVICES)
FOREIGN_NAMES: Mapping[str, Counterpart] = {name: row for row in COUNTERPARTS for name in row.names}
# Foreign name -> our setting, for names that mean exactly the same.
ACCEPTED_NAMES: Mapping[str, str] = {
    name: row.setting for name, row in FOREIGN_NAMES.items() if row.accepted and row.setting
}

__all__ = ["ACCEPTED_NAMES", "COUNTERPARTS", "FOREIGN_NAMES", "Counterpart"]
