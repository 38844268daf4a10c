"""Fixtures shared by all tests."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from sqlalchemy import event, pool

from dgemma_core import Engine, LoadSpec
from tests.checkpoints import save_checkpoint

# Variants of tests that `make test` leaves out because they take three seconds or more: by the start of their node id.
LANDING = (
    "tests/conformance/langchain/test_integration.py::TestChatDiffusionGemma::test_json_mode",
    "tests/conformance/langchain/test_integration.py::TestChatDiffusionGemma::test_structured_output",
    "tests/core/chat/test_images.py::test_same_draws_give_the_references_answer[causal images]",
    "tests/core/execution/test_reference.py::test_every_step_agrees[vocabulary-262144]",
    "tests/core/execution/test_reference.py::test_same_draws_give_the_same_tokens[vocabulary-262144]",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what takes long, and lets each test of a framework's suite keep one of its parameters in ``make test``."""
    suites: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.nodeid.startswith(LANDING):
            item.add_marker(pytest.mark.landing)
        elif item.nodeid.startswith("tests/conformance/") and not item.get_closest_marker("peers"):
            suites.setdefault(item.nodeid.split("[")[0], []).append(item)
    for name, variants in suites.items():
        # The choice differs from test to test, so that every parameter is used, and not from process to process.
        kept = variants[crc32(name.encode()) % len(variants)]
        for item in variants:
            if item is not kept:
                item.add_marker(pytest.mark.landing)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny random checkpoint (vocabulary 512, canvas 16, window 24); its answers end at their limit."""
    return str(save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", never_ends=True))


@pytest.fixture
def tiny_engine(tiny_checkpoint: str) -> Iterator[Engine]:
    """A fresh engine on the tiny random checkpoint."""
    with Engine(LoadSpec(model=tiny_checkpoint)) as engine:
        yield engine


@pytest.fixture(scope="session")
def embedded_engine() -> Iterator[Engine]:
    """One engine on the embedded checkpoint for the whole run."""
    with Engine(LoadSpec()) as engine:
        yield engine


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def close_connections() -> Iterator[None]:
    """Closes the database connections of a test, which LlamaIndex's chat memory leaves open.

    Collected as garbage, such a connection reports from its own thread to the loop that is current then, even a closed
    one, and that fails whichever test is running.
    """
    opened: list[Any] = []

    def remember(connection: Any, _record: object) -> None:
        if hasattr(connection, "driver_connection"):
            opened.append(connection.driver_connection)

    def stop() -> None:
        for connection in opened:
            connection.stop()

    event.listen(pool.Pool, "connect", remember)
    yield
    event.remove(pool.Pool, "connect", remember)
    if opened:
        thread = threading.Thread(target=stop)  # It has no loop, so nothing is reported.
        thread.start()
        thread.join()
