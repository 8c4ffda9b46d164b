"""Two boxes before one application that is asked for too much, in a simulation."""

import pytest

from benchmarks.simulation.all_scenarios import SCENARIOS
from benchmarks.simulation.boxes import Boxes
from benchmarks.simulation.runner import TOLERANCE
from benchmarks.simulation.simulate import simulate
from retter.breaker import BreakerSettings
from tests.support.tracing import untraced

pytestmark = untraced

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
POOL = BY_NAME["pool, 4x"]
LITTLE = BY_NAME["pool, 1.5x"]
CONNECTIONS = 10  # of its pool
NO_WORSE = 0.9


@pytest.mark.parametrize("name", ["5x", "hang 20 s"])
def test_two_boxes_that_know_nothing_of_each_other_meet_the_bars_of_one(name: str) -> None:
    """These applications answer later if there is more to do, and each box sees that."""
    scenario = BY_NAME[name]
    settings = BreakerSettings()
    run = simulate(scenario.model, scenario.load, 1, lambda now, run: Boxes(now, run, 2, settings))
    for bar in scenario.bars:
        value = bar.measure(run)
        assert not bar.misses(value, TOLERANCE), f"{bar.label}: {value} instead of {bar.text}"


@pytest.mark.parametrize("boxes", [2, 3])
def test_writes_of_one_box_take_no_places_of_another(boxes: int) -> None:
    """One has more to do than its part, while the other has less."""
    settings = BreakerSettings(max_in_flight=CONNECTIONS)
    run = simulate(LITTLE.model, LITTLE.load, 1, lambda now, run: Boxes(now, run, boxes, settings))
    (posts,) = [bar for bar in LITTLE.bars if bar.label == "POST ok, %"]
    assert not posts.misses(posts.measure(run))


def figures(boxes: int, seed: int) -> dict[str, float]:
    settings = BreakerSettings(max_in_flight=CONNECTIONS)
    run = simulate(POOL.model, POOL.load, seed, lambda now, run: Boxes(now, run, boxes, settings))
    assert run.leaked == 0
    found = {bar.label: bar.measure(run) for bar in POOL.bars}
    return {label: value for label, value in found.items() if value is not None}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_its_part_of_the_permits_each_box_leaves_the_others_theirs(seed: int) -> None:
    alone, together = figures(1, seed), figures(2, seed)
    for label in ("fresh goodput, % of the pool's", "POST ok, %"):
        assert together[label] >= NO_WORSE * alone[label], label
    assert together["GET errors"] == 0 == alone["GET errors"]
    assert together["changes of state"] <= 2 * 3, "each box finds its limit once"
