"""How many threads a step uses."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from dgemma_core import LoadSpec
from dgemma_core.engine.threads import fewest_threads, set_threads
from dgemma_core.execution.eager import EagerBackend
from tests.checkpoints import make_model


@pytest.fixture(autouse=True)
def kept_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 0.010, 2: 0.019, 4: 0.04}, 1),
        ({1: 0.010, 2: 0.0095, 4: 0.0094}, 1),
        ({1: 0.010, 2: 0.006, 4: 0.0058}, 2),
        ({1: 0.010, 2: 0.006, 4: 0.003}, 4),
        ({4: 0.5}, 4),
    ],
    ids=["more are slower", "more are hardly faster", "two are faster", "all are faster", "a large model"],
)
def test_more_threads_are_taken_if_they_are_faster(seconds: dict[int, float], expected: int) -> None:
    assert fewest_threads(4, seconds.__getitem__) == expected


def test_the_most_may_be_no_power_of_two() -> None:
    asked: list[int] = []

    def measure(threads: int) -> float:
        asked.append(threads)
        return 0.01 / threads

    assert fewest_threads(6, measure) == 6
    assert asked == [6, 1, 2, 4, 6]


def test_a_number_is_taken_as_it_is() -> None:
    set_threads(2, EagerBackend(make_model()))
    assert torch.get_num_threads() == 2


class Elsewhere(EagerBackend):
    """Computes here, and says that it does not."""

    on_cpu = False


def test_a_number_without_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    before = torch.get_num_threads()
    with caplog.at_level(logging.WARNING, "dgemma_core"):
        set_threads("auto", Elsewhere(make_model()))
        assert not caplog.messages
        set_threads(before + 1, Elsewhere(make_model()))
    assert torch.get_num_threads() == before
    assert caplog.messages[0].startswith(f"threads={before + 1}: ")


def test_a_step_is_measured_and_leaves_no_slot() -> None:
    torch.set_num_threads(2)
    backend = EagerBackend(make_model())
    set_threads("auto", backend)
    assert torch.get_num_threads() in (1, 2)
    with pytest.raises(ValueError, match="slot=0"):
        backend.close(0)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "all", None])
def test_a_bad_number_is_named(value: object) -> None:
    with pytest.raises(ValueError, match="threads="):
        LoadSpec(threads=value)  # type: ignore[arg-type]
