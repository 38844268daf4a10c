"""What ``make test`` leaves out is still there."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.conftest import LANDING


@pytest.mark.parametrize("start", LANDING)
def test_a_test_that_is_left_out_exists(start: str, repository: Path) -> None:
    file, _, name = start.partition("::")
    text = (repository / file).read_text(encoding="utf-8")
    inherited = [f"TestChatDiffusionGemma::{test}" for test in dir(ChatModelIntegrationTests)]
    assert f"def {name.split('[')[0]}" in text or any(test.startswith(name) for test in inherited)
