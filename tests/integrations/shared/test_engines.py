from __future__ import annotations

import asyncio
import threading

from dgemma_core import LoadSpec
from dgemma_integrations.shared.engines import aengine_for, engine_for, release


def test_one_engine_per_spec_until_released(tiny_checkpoint: str) -> None:
    spec = LoadSpec(model=tiny_checkpoint, max_context=512)
    found = []
    threads = [threading.Thread(target=lambda: found.append(engine_for(spec))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = found[0]
    assert all(other is engine for other in found)
    assert asyncio.run(aengine_for(spec)) is engine
    assert engine.stats().weight_loads == 0
    release(spec)
    assert engine.closed
    release(spec)
    again = engine_for(spec)
    assert again is not engine
    assert not again.closed
    release(spec)


def test_an_engine_closed_by_somebody_else_is_replaced(tiny_checkpoint: str) -> None:
    spec = LoadSpec(model=tiny_checkpoint, max_context=513)
    engine = engine_for(spec)
    engine.close()
    assert engine_for(spec) is not engine
    release(spec)
