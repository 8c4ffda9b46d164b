"""Several workers in front of a simulated application: the bars of one, with a virtual clock."""

from collections.abc import Iterator

import pytest

from benchmarks.simulation.ablation import Chosen
from benchmarks.simulation.all_scenarios import SCENARIOS
from benchmarks.simulation.runner import CONTROLLERS, TOLERANCE
from benchmarks.simulation.scenarios import Bar, Scenario, least, most
from benchmarks.simulation.side_by_side import figures_of, is_worse
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.worker_scenarios import KILLED, TELLING
from tests.support.tracing import untraced

pytestmark = untraced

BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *KILLED)}
# Each needs another part: a limit, a ceiling, a stall, probes, lanes and tickets, a next leader.
SIMULATED = (
    "5x",
    "pool, 4x",
    "hang 20 s",
    "refused 20 s",
    "crawl 4x, 20,000 addresses",
    *[scenario.name for scenario in KILLED],
)


@pytest.fixture(autouse=True)
def one_worker_afterwards() -> Iterator[None]:
    yield
    Chosen.workers, Chosen.by_client = 1, True


@pytest.mark.release
@pytest.mark.parametrize("name", SIMULATED)
def test_the_bars_are_met_by_two_workers(name: str) -> None:
    """`make simulate-workers` has more scenarios, and four workers beside two and one."""
    scenario, Chosen.workers = BY_NAME[name], 2
    _check(scenario)


def test_the_bars_are_met_by_four_workers_whose_clients_come_to_any_of_them() -> None:
    """A client's connections may be spread: then each worker sees a part of its demand."""
    Chosen.workers, Chosen.by_client = 4, False
    _check(BY_NAME["crawl 1x, 100 addresses"])


def _check(scenario: Scenario) -> None:
    run = simulate(scenario.model, scenario.load, 1, CONTROLLERS["retter"])
    for bar in scenario.bars:
        value = bar.measure(run)
        assert not bar.misses(value, TOLERANCE), f"{bar.label}: {value} instead of {bar.text}"


def test_every_telling_scenario_exists() -> None:
    assert set(TELLING) <= BY_NAME.keys()


def test_a_task_says_with_how_many_workers() -> None:
    """And its figures are in the order of the bars."""
    number = [scenario.name for scenario in SCENARIOS].index("burst of 60, 8 x 50 ms, cold")
    assert figures_of((number, 2, 1, True)) == [100, 0]
    assert Chosen.workers == 2


@pytest.mark.parametrize(
    ("bar", "value", "alone", "worse"),
    [
        (least("", lambda _: 0.0, 90), 70, 100, True),
        (least("", lambda _: 0.0, 90), 70, 72, False),  # nor does one worker reach it
        (least("", lambda _: 0.0, 90), 85, 100, False),  # within a tenth of the bar
        (most("", lambda _: 0.0, 10), 20, 5, True),
        (most("", lambda _: 0.0, 10), 20, 19, False),
        (most("", lambda _: 0.0, 10), 20, None, True),
        (most("first, s", lambda _: 0.0, 0.15), 0.2, 0.15, False),  # a tick later
        (most("first, s", lambda _: 0.0, 0.15), 0.25, 0.15, True),
    ],
)
def test_a_figure_is_worse_if_it_misses_the_bar_and_that_of_one_worker(
    bar: Bar, value: float, alone: float | None, worse: bool
) -> None:
    assert is_worse(bar, value, alone) is worse
