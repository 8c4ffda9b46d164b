"""The controller in front of a simulated application: the bars, with a virtual clock."""

from math import inf
from xml.etree import ElementTree

import pytest

from benchmarks.simulation import ablation, cost, crowd_picture, evidence, worth
from benchmarks.simulation.all_scenarios import SCENARIOS
from benchmarks.simulation.runner import CONTROLLERS, TOLERANCE
from benchmarks.simulation.scenarios import Scenario
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.timeline import draw
from retter.breaker import constants
from tests.support.compiled import replaces_parts
from tests.support.tracing import untraced

pytestmark = untraced

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
WIDE = "wide 64 x 250 ms, cold, new"
QUICK = [scenario for scenario in SCENARIOS if scenario.quick]


@pytest.mark.parametrize("scenario", QUICK, ids=lambda scenario: scenario.name)
def test_the_bars_are_met(scenario: Scenario) -> None:
    """Every figure of the telling scenarios; `python -m benchmarks.simulation` runs them all."""
    run = simulate(scenario.model, scenario.load, 1, CONTROLLERS["retter"])
    for bar in scenario.bars:
        value = bar.measure(run)
        assert not bar.misses(value, TOLERANCE), f"{bar.label}: {value} instead of {bar.text}"


def test_the_bars_tell_good_from_bad() -> None:
    """A classic error breaker misses most of them at five times the capacity."""
    scenario = BY_NAME["5x"]
    run = simulate(scenario.model, scenario.load, 1, CONTROLLERS["errors"])
    assert sum(bar.misses(bar.measure(run), TOLERANCE) for bar in scenario.bars) >= 5


@pytest.mark.parametrize("form", ["64 x 250 ms", "64 x 500 ms", "no limit, 1 s"])
def test_short_first_answers_prove_no_overload(form: str) -> None:
    """With this seed the first dozen takes half as long as usual: all others are no later."""
    scenario = BY_NAME[f"wide {form}, cold, known"]
    run = simulate(scenario.model, scenario.load, 12, CONTROLLERS["retter"], drain_s=0)
    assert not run.transitions
    for bar in scenario.bars:
        value = bar.measure(run)
        assert not bar.misses(value), f"{bar.label}: {value} instead of {bar.text}"


def test_dips_heal_a_wrong_baseline() -> None:
    """Learnt while everything was slow; later the limit comes down to what is true."""
    scenario = BY_NAME["baseline shift, quicker"]
    run = simulate(scenario.model, scenario.load, 1, CONTROLLERS["retter"], drain_s=0)
    limits = [sample.limit for sample in run.samples]
    assert limits[-1] < 0.75 * max(limits)


def test_a_time_line_is_drawn() -> None:
    """Well-formed, with a line for each figure."""
    scenario = BY_NAME["collapse"]
    run = simulate(scenario.model, scenario.load, 1, CONTROLLERS["retter"], drain_s=0)
    picture = ElementTree.fromstring(draw(scenario, run))
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 5


def test_the_table_of_a_conclusion_is_drawn() -> None:
    """The pool's ceiling is drawn at the moment it is found; a healthy application has no edge."""
    pool, wide = (evidence.collect(BY_NAME[name]) for name in ("pool, 4x", WIDE))
    assert "LIMITING, overloaded" in pool.moment
    assert pool.edges["ceiling"] in (9, 10)
    assert any(failed for rank, _, _, failed in pool.rows if rank > 10)
    assert "still CLOSED" in wide.moment
    assert wide.edges["ceiling"] == wide.edges["late edge"] == inf
    drawn = {BY_NAME["pool, 4x"].name: pool, WIDE: wide}
    chosen = [BY_NAME[name] for name in drawn]
    picture = ElementTree.fromstring(evidence.draw(chosen, lambda scenario: drawn[scenario.name]))
    dashed = [line for line in picture.iter() if "stroke-dasharray" in line.attrib]
    assert len(dashed) == 3, "proven twice, one ceiling"


@replaces_parts
def test_what_a_rule_is_worth_is_told() -> None:
    """Without a stall's signal a hung application is misread; without dips it is not."""
    scenario = SCENARIOS.index(BY_NAME["hung for 14 s"])
    *_, stall, dips = worth.table(["stall", "dips"], [scenario], 1, 1)
    assert "| `stall` | " in stall
    assert "hung for 14 s: stalled is the cause | 1 | 0 |" in stall
    assert dips == "| `dips` | 0 | nowhere | | |"


def test_an_unknown_constant_is_refused() -> None:
    """A slip in `--set` must not look like a result."""
    with pytest.raises(ValueError, match="HEADROM"):
        ablation.set_constant("HEADROM", 2.0)
    ablation.set_constant("HEADROOM", constants.HEADROOM)


def test_the_cost_benchmark_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """It forwards on a closed circuit and sheds on a full one; the speed is not judged here."""
    monkeypatch.setattr(cost, "ROUNDS", 1)
    assert set(cost.forwarding()) == {"admit", "started", "first_byte", "finished", "all four"}
    assert len(cost.shedding()) == 2
    assert cost.ticking(10) > 0


def test_two_runs_beside_a_crawler_are_drawn() -> None:
    """A panel without fairness and one with it, three lines each."""
    picture = ElementTree.fromstring(crowd_picture.picture())
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 6
