"""Draws the table by which the controller concludes, as an SVG by hand.

A panel a scenario: how requests ended by the number in flight when they started, at the moment of
the first change of state (at the end of the load where nothing changes), and what was read off it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import inf, isfinite

from benchmarks.simulation.run import Run
from benchmarks.simulation.scenarios import Scenario
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.timeline import LEFT, RIGHT, STYLE, TOP, WIDTH
from retter.breaker import BreakerSettings, CircuitBreaker, Transition

PANEL = 150  # height
GAP = 70
ENDINGS = {"in time": "#009e73", "late": "#e69f00", "failed": "#d00000"}
EDGES = {"proven": "#0072b2", "late edge": "#d55e00", "ceiling": "#d00000"}
SHARE_MIN = 0.02  # of the highest row: what is less cannot be seen


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The rows at one moment: (lowest rank, in time, late, failed), and the edges read off them."""

    moment: str
    rows: Sequence[tuple[int, float, float, float]]
    edges: dict[str, float]


def collect(scenario: Scenario, seed: int = 1) -> Evidence:
    """Run a scenario until its controller concludes something."""
    taken: list[Evidence] = []
    breakers: list[CircuitBreaker] = []

    def make(now: float, run: Run) -> CircuitBreaker:
        def note(transition: Transition) -> None:
            if not taken:
                cause = transition.cause.value
                moment = f"{transition.at:.1f} s: {transition.after.value}, {cause}"
                taken.append(_of(breakers[-1], moment))

        breakers.append(CircuitBreaker(BreakerSettings(), now, note))
        return breakers[-1]

    simulate(scenario.model, scenario.load, seed, make, drain_s=0)
    if not taken:
        end = scenario.load.phases[-1][0]
        taken.append(_of(breakers[-1], f"{end:.1f} s: still CLOSED"))
    return taken[0]


def _of(breaker: CircuitBreaker, moment: str) -> Evidence:
    table = breaker.circuit.table
    return Evidence(
        moment=moment,
        rows=[(row.first, row.in_time, row.late, row.failed) for row in table.rows],
        edges={
            "proven": float(table.proven),
            "late edge": table.late_from,
            "ceiling": table.ceiling,
        },
    )


def draw(scenarios: Sequence[Scenario], collect_of: Callable[[Scenario], Evidence]) -> str:
    """Return the picture, a panel a scenario."""
    height = TOP + len(scenarios) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>How requests ended, by the number in flight when they started</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="22">How requests ended, '
        "by the number in flight when they started</text>",
        *_legend(42),
    ]
    for number, scenario in enumerate(scenarios):
        parts += _panel(scenario, collect_of(scenario), TOP + number * (PANEL + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(y: float) -> list[str]:
    names = {**ENDINGS, **EDGES}
    return [
        f'<text x="{LEFT + 110 * index}" y="{y}" style="fill:{colour}">'
        f"{'■' if name in ENDINGS else '┆'} {name}</text>"
        for index, (name, colour) in enumerate(names.items())
    ]


def _panel(scenario: Scenario, evidence: Evidence, top: float) -> list[str]:
    outcomes = [sum(row[1:]) for row in evidence.rows]
    highest = max(*outcomes, 1.0)
    used = [index for index, count in enumerate(outcomes) if count >= SHARE_MIN * highest]
    last_rank = max(
        [evidence.rows[used[-1] if used else 0][0]]
        + [int(edge) for edge in evidence.edges.values() if isfinite(edge)]
    )
    shown = [row for row in evidence.rows if 0 < row[0] <= 1.1 * last_rank]
    step = (WIDTH - LEFT - RIGHT) / max(12, len(shown))
    bottom = top + PANEL
    parts = [
        f'<text x="{LEFT}" y="{top - 6}">{escape(scenario.name)}, at {escape(evidence.moment)}'
        "</text>",
        f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}"/>',
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{LEFT - 6}" y="{top + 4}" text-anchor="end">{highest:.0f}</text>',
    ]
    every = max(1, len(shown) // 16)
    for index, (first, *counts) in enumerate(shown):
        x, y = LEFT + index * step, bottom
        for count, colour in zip(counts, ENDINGS.values(), strict=True):
            high = PANEL * count / highest
            y -= high
            if high >= 0.5:
                parts.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{0.8 * step:.1f}" '
                    f'height="{high:.1f}" fill="{colour}"/>'
                )
        if index % every == 0:
            parts.append(
                f'<text x="{x + 0.4 * step:.1f}" y="{bottom + 15}" text-anchor="middle">{first}'
                "</text>"
            )
    for name, edge in evidence.edges.items():
        if edge < inf:
            # Proven and ceiling are the last that is good, the late edge the first that is not.
            right = sum(row[0] <= edge for row in shown) - (name == "late edge")
            x = LEFT + (right - 0.1) * step
            parts.append(
                f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" '
                f'stroke="{EDGES[name]}" stroke-width="2" stroke-dasharray="5 3"/>'
            )
    return parts
