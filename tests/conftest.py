"""Fixtures shared by all tests."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, pool

from dgemma_core import Engine, LoadSpec
from tests.checkpoints import save_checkpoint


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
