"""Draws what visitors get beside a crawler, without fairness and with it, as one SVG.

python -m benchmarks.simulation.crowd_picture docs/fairness.svg
"""

import sys
from pathlib import Path

from benchmarks.simulation.ablation import Chosen
from benchmarks.simulation.crowd_scenarios import CROWDED
from benchmarks.simulation.run import Run
from benchmarks.simulation.runner import CONTROLLERS
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.timeline import (
    GAP,
    PANEL,
    TOP,
    beginning,
    panel,
    rate,
    time_axis,
)
from retter.breaker import FairnessMode

SCENARIO = "crawl 4x, 20 addresses"
SEED = 1


def _run(fairness: FairnessMode) -> tuple[Run, float]:
    scenario = next(one for one in CROWDED if one.name == SCENARIO)
    before, Chosen.fairness = Chosen.fairness, fairness
    try:
        run = simulate(scenario.model, scenario.load, SEED, CONTROLLERS["retter"])
    finally:
        Chosen.fairness = before
    return run, scenario.load.phases[-1][0]


def picture() -> str:
    """Return the SVG."""
    title = "Visitors beside a crawler that asks for four times the capacity, from 20 to 50 s"
    parts = beginning(title, ": their answers a second, without fairness and with it")
    for number, fairness in enumerate((FairnessMode.OFF, FairnessMode.ON)):
        run, end = _run(fairness)
        lines = {
            name: rate(run, how, end, "visitor")
            for name, how in (("fresh", "fresh"), ("stored", "stored"), ("errors", "error"))
        }
        top = TOP + number * (PANEL + GAP)
        parts += panel(f"--fairness {fairness.value}, answers a second", lines, top, end)
    parts += time_axis(TOP + 2 * PANEL + GAP, end)
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
