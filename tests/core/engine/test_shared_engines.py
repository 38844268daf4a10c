"""Engines by their spec, counted by references. Nothing is loaded here."""

from __future__ import annotations

import threading

import pytest

from dgemma_core import Engine, LoadSpec
from dgemma_core.engine.shared_engines import SharedEngines

SPEC, OTHER = LoadSpec(max_context=501), LoadSpec(max_context=502)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> SharedEngines[Engine]:
    """A registry of this test's own."""
    shared: SharedEngines[Engine] = SharedEngines()
    monkeypatch.setattr(Engine, "_shared", shared)
    return shared


def test_equal_specs_share_an_engine(shared: SharedEngines[Engine]) -> None:
    first = Engine.shared(SPEC)
    assert Engine.shared(LoadSpec(max_context=501)) is first
    assert Engine.shared(OTHER) is not first


def test_the_last_reference_closes_it(shared: SharedEngines[Engine]) -> None:
    engine = Engine.shared(SPEC)
    assert Engine.shared(SPEC) is engine is Engine.shared(SPEC)
    engine.close()
    engine.close()
    assert not engine.closed
    engine.close()
    assert engine.closed
    assert Engine.shared(SPEC) is not engine


def test_closing_once_more_takes_nothing_from_the_next_engine(shared: SharedEngines[Engine]) -> None:
    old = Engine.shared(SPEC)
    old.close()
    new = Engine.shared(SPEC)
    old.close()
    old.close()
    assert not new.closed
    assert Engine.shared(SPEC) is new
    new.close()
    assert not new.closed


def test_a_private_engine_has_no_part_in_it(shared: SharedEngines[Engine]) -> None:
    common = Engine.shared(SPEC)
    private = Engine(SPEC)
    private.close()
    private.close()
    assert private.closed
    assert not common.closed
    assert Engine.shared(SPEC) is common


def test_an_engine_that_has_ended_is_replaced(shared: SharedEngines[Engine]) -> None:
    """And who still holds the old one gives back what is the old one's."""
    old = Engine.shared(SPEC)
    old._worker.close()
    old._worker._end(RuntimeError("broke"))
    assert old.closed
    new = Engine.shared(SPEC)
    assert new is not old
    old.close()
    assert Engine.shared(SPEC) is new


def test_give_back_tells_the_last(shared: SharedEngines[Engine]) -> None:
    engine = shared.take(SPEC, Engine)
    shared.take(SPEC, Engine)
    assert shared.give_back(SPEC, engine) is False
    assert shared.give_back(SPEC, engine) is True
    assert shared.give_back(SPEC, engine) is True, "one that was never shared, or no longer is"


def test_many_threads_get_one_engine(shared: SharedEngines[Engine]) -> None:
    engines: list[Engine] = []
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait()
        engines.append(Engine.shared(SPEC))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(engines) == 8
    assert len(set(engines)) == 1
    for _ in range(7):
        engines[0].close()
    assert not engines[0].closed
    engines[0].close()
    assert engines[0].closed


def test_a_lock_held_at_a_fork_is_renewed(shared: SharedEngines[Engine]) -> None:
    engine = Engine.shared(SPEC)
    shared._lock.acquire()
    shared.renew_locks()
    assert Engine.shared(SPEC) is engine


def test_a_forgotten_engine_leaves_no_reference(shared: SharedEngines[Engine]) -> None:
    engine = Engine.shared(SPEC)
    engine.close()
    assert not shared._engines
    assert len(shared._references) == 0
