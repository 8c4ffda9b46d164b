"""Draws what visitors got in two runs over sockets, without fairness and with it, as one SVG."""

from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.overload.trial import Trial
from benchmarks.simulation.timeline import (
    GAP,
    PANEL,
    TOP,
    beginning,
    panel,
    time_axis,
)

KINDS = {"fresh": "fresh", "stored": "stored", "errors": "trouble"}  # legend, key of a second


def picture(trials: Sequence[Trial]) -> str:
    """Return the SVG of the runs, two at most, one above the other."""
    scenario = trials[0].scenario
    begin, end = scenario.calm_s, scenario.calm_s + scenario.stress_s
    title = (
        f"Visitors beside a crawler at {scenario.rate:g}x from {scenario.crawlers:,} addresses, "
        f"from {begin:g} to {end:g} s"
    )
    parts = beginning(title, ": what they asked for each second, and what they got")
    for number, trial in enumerate(trials[:2]):
        top = TOP + number * (PANEL + GAP)
        parts += panel(
            escape(f"{trial.peer}, a second"), _lines(trial.seconds[: int(end)]), top, end
        )
    parts += time_axis(TOP + 2 * PANEL + GAP, end)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _lines(seconds: Sequence[Mapping[str, int]]) -> dict[str, list[tuple[float, float]]]:
    """Return a point for each second in which a request began, by what came of it."""
    return {
        legend: [(second + 0.5, float(one[key])) for second, one in enumerate(seconds)]
        for legend, key in KINDS.items()
    }
