"""The eager backend's side of the contract, apart from its numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from dgemma_core.execution.backend import CanvasSegment, EncodeSegment, PrefixCopy, Slot, Step, StepResult
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import make_model
from tests.core.execution.replaying import same


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(varied_scales=True)


@pytest.fixture
def backend(model: Any) -> EagerBackend:
    return EagerBackend(model)


def encode(slot: Slot, start: int, length: int, seed: int = 0) -> EncodeSegment:
    tokens = torch.randint(20, 500, (start + length,), generator=torch.Generator().manual_seed(seed))
    return EncodeSegment(slot, start, tokens[start:])


def canvas(slot: Slot, start: int, seed: int = 0, **changes: Any) -> CanvasSegment:
    generator = torch.Generator().manual_seed(seed)
    first = CanvasSegment(
        slot=slot,
        start=start,
        length=16,
        tokens=torch.randint(512, (16,), generator=generator),
        pinned=torch.zeros(16, dtype=torch.bool),
        unconditioned=torch.ones(16, dtype=torch.bool),
        uniform=torch.rand(16, generator=generator),
        temperature=0.7,
    )
    return replace(first, **changes)


def later(segment: CanvasSegment, seed: int, active: int = 16) -> CanvasSegment:
    """A step after the first: conditioned on the last one, with one position pinned."""
    fresh = canvas(segment.slot, segment.start, seed)
    pinned = torch.arange(active) == 2
    return replace(
        fresh,
        tokens=fresh.tokens[:active],
        pinned=pinned,
        unconditioned=torch.arange(active) == 5,
        uniform=fresh.uniform[:active],
        guided=segment.guided,
    )


@torch.inference_mode()
def run(backend: EagerBackend, step: Step) -> StepResult:
    return backend.run(step)


def cached(backend: EagerBackend, slot: Slot, length: int) -> tuple[torch.Tensor, ...]:
    """Keys and values of a slot's first positions, of all layers."""
    cache = backend._slots[slot].cache
    return tuple(x for layer in range(len(cache.keys)) for x in cache.read(layer, 0, length))


class HalfwayError(RuntimeError):
    """Raised in the middle of a pass."""


def fail_once(module: Any) -> None:
    """The module's next call raises, and no later one."""

    def hook(*_: Any) -> None:
        handle.remove()
        raise HalfwayError

    handle = module.register_forward_pre_hook(hook)


# Where a pass can fail: in a layer, after some layers have written keys and values, or in the readout.
PLACES: dict[str, Callable[[Any], Any]] = {
    "first layer": lambda model: model.model.decoder.layers[0].mlp.down_proj,
    "last layer's keys are written": lambda model: model.model.decoder.layers[-1].self_attn.o_proj,
    "last layer": lambda model: model.model.decoder.layers[-1].mlp.down_proj,
    "readout": lambda model: model.lm_head,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_pass_that_failed_halfway_can_be_repeated(model: Any, place: str) -> None:
    def steps(a: Slot, b: Slot) -> list[Step]:
        first, guided = canvas(a, 40), canvas(b, 42, seed=3, guided=True)
        return [
            Step((encode(a, 0, 40), encode(b, 36, 6)), (first, guided), (PrefixCopy(b, a, 0, 36),)),
            Step(canvases=(later(first, 1), later(guided, 2))),
            Step(canvases=(later(first, 4, active=9), later(guided, 5))),
            Step((encode(b, 42, 16),), (later(first, 6, active=9), canvas(b, 58))),
        ]

    undisturbed, disturbed = EagerBackend(model), EagerBackend(model)
    names = [(backend.open(100), backend.open(100)) for backend in (undisturbed, disturbed)]
    for step, again in zip(*(steps(*pair) for pair in names), strict=True):
        expected = run(undisturbed, step)
        fail_once(PLACES[place](model))
        with pytest.raises(HalfwayError):
            run(disturbed, again)
        repeated = run(disturbed, again)
        assert same(expected, repeated)
    for one, other in zip(*names, strict=True):
        assert same(cached(undisturbed, one, 74), cached(disturbed, other, 74))


def test_parts_of_a_failed_step_can_run_alone(model: Any, backend: EagerBackend) -> None:
    a, b, fresh = backend.open(60), backend.open(60), backend.open(60)
    parts = [Step((encode(slot, 0, 20 + slot),), (canvas(slot, 20 + slot),)) for slot in (a, b)]
    fail_once(model.model.decoder.layers[1].mlp.down_proj)
    with pytest.raises(HalfwayError):
        run(backend, Step(parts[0].encode + parts[1].encode, parts[0].canvases + parts[1].canvases))
    (alone,) = run(backend, parts[1]).canvases
    expected = run(backend, Step((encode(fresh, 0, 20 + b),), (canvas(fresh, 20 + b),)))
    assert same(alone, expected.canvases[0])


def test_closing_frees_what_a_slot_held(backend: EagerBackend) -> None:
    slot, kept = backend.open(40), backend.open(40)
    run(backend, Step((encode(slot, 0, 20), encode(kept, 0, 20)), (canvas(slot, 20), canvas(kept, 20))))
    state, cache = backend._slots[slot], backend._slots[slot].cache
    held = [weakref.ref(x) for x in (state, cache, cache.keys[0], cache.values[1], state.soft)]
    del state, cache
    backend.close(slot)
    assert [ref() for ref in held] == [None] * 5
    assert list(backend._slots) == [kept]


def test_a_name_is_not_used_again(backend: EagerBackend) -> None:
    first = backend.open(8)
    backend.close(first)
    assert backend.open(8) != first


@pytest.mark.parametrize(
    "call",
    [
        lambda backend, known: backend.close(77),
        lambda backend, known: backend.fork_prefix(77, known, 4),
        lambda backend, known: backend.fork_prefix(known, 77, 4),
        lambda backend, known: backend.logits(77, 0, 1, 1.0),
        lambda backend, known: backend.label_logits(77, [0], [[1]]),
        lambda backend, known: run(backend, Step((encode(77, 0, 4),))),
        lambda backend, known: run(backend, Step(canvases=(canvas(77, 0),))),
        lambda backend, known: run(backend, Step((encode(known, 0, 4),), copies=(PrefixCopy(known, 77, 0, 4),))),
        lambda backend, known: (backend.close(known), backend.open(8), backend.close(known)),
    ],
)
def test_slots_that_are_not_open_are_named(backend: EagerBackend, call: Callable[[EagerBackend, Slot], Any]) -> None:
    known = backend.open(40)
    with pytest.raises(ValueError, match=r"slot=(77|0) is not open: use one that open\(\) has returned"):
        call(backend, known)


@pytest.mark.parametrize("capacity", [1, 16, 17, 100])
def test_slot_bytes_are_those_that_open_allocates(backend: EagerBackend, capacity: int) -> None:
    cache = backend._slots[backend.open(capacity)].cache
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*cache.keys, *cache.values)}
    assert len(storages) == 4
    assert backend.slot_bytes(capacity) == sum(storages.values()) == cache.nbytes
    assert cache.capacity >= capacity


def test_a_step_without_canvases_only_encodes(backend: EagerBackend) -> None:
    chunks, whole = backend.open(60), backend.open(60)
    assert run(backend, Step((encode(chunks, 0, 13),))) == StepResult()
    assert run(backend, Step((encode(chunks, 13, 17),))) == StepResult()
    last, first = canvas(chunks, 30), canvas(whole, 30)
    (after,), (at_once,) = (
        run(backend, step).canvases for step in (Step(canvases=(last,)), Step((encode(whole, 0, 30),), (first,)))
    )
    assert same(after, at_once)


def test_a_fork_is_independent_of_its_source(backend: EagerBackend) -> None:
    source, fork, expected = backend.open(60), backend.open(60), backend.open(60)
    run(backend, Step((encode(source, 0, 30), encode(expected, 0, 30))))
    backend.fork_prefix(source, fork, 30)
    run(backend, Step((encode(source, 0, 30, seed=9),)))
    backend.close(source)
    forked, own = run(backend, Step(canvases=(canvas(fork, 30), canvas(expected, 30)))).canvases
    assert same(forked, own)


def test_a_steps_inputs_stay_as_they_are(backend: EagerBackend) -> None:
    a, b = backend.open(80), backend.open(80)
    first = canvas(a, 20, guided=True)
    read = canvas(b, 18, reads=(3,), guided=True)
    steps = [
        Step((encode(a, 0, 20), encode(b, 10, 8)), (first, read), (PrefixCopy(b, a, 0, 10),)),
        Step(canvases=(later(first, 1, active=9),)),
    ]
    for step in steps:
        before = deepcopy(step)
        result = run(backend, step)
        kept = deepcopy(result)
        assert same(step, before)
        run(backend, Step(canvases=(later(first, 7),)))
        assert same(step, before)
        assert same(result, kept), "a later step must not change a result"
