from __future__ import annotations

import pytest

from dgemma_integrations.shared.keywords import reject_unknown


def test_every_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match="arguments 'bar', 'foo'"):
        reject_unknown(["foo", "seed", "bar"], ["seed"], owner="Model")
