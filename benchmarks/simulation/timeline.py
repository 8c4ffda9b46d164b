"""Draws a run as an SVG by hand: limit and in flight above, answers a second below."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

from benchmarks.simulation.run import Run, Sample
from benchmarks.simulation.scenarios import Scenario

WIDTH, HEIGHT = 900, 520
LEFT, RIGHT, TOP = 60, 20, 70
PANEL = 180  # height of each of the two panels
GAP = 50
STEP_S = 0.5  # answers are counted over so long

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 15px; font-weight: 600 }
.axis { stroke: #999; stroke-width: 1 }
.grid { stroke: #999; stroke-width: .5; stroke-dasharray: 2 4 }
.line { fill: none; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
"""
COLOURS = {
    "places": "#d55e00",
    "in flight": "#0072b2",
    "fresh": "#009e73",
    "stored": "#cc79a7",
    "errors": "#e00000",
}
STATE_COLOURS = {"LIMITING": "#e69f00", "OPEN": "#d00000", "HALF-OPEN": "#56b4e9"}

Points = Sequence[tuple[float, float]]


def draw(scenario: Scenario, run: Run) -> str:
    """Return the picture of one run."""
    end = scenario.load.phases[-1][0]
    samples = [sample for sample in run.samples if sample.at <= end]
    upper = {
        "places": [(sample.at, sample.cap) for sample in samples],
        "in flight": [(sample.at, float(sample.in_flight)) for sample in samples],
    }
    lower = {
        name: rate(run, how, end)
        for name, how in (("fresh", "fresh"), ("stored", "stored"), ("errors", "error"))
    }
    second = TOP + PANEL + GAP
    parts = [
        *beginning(f"{scenario.name}: {scenario.about}"),
        *_states(samples, end),
        *panel("requests at the application", upper, TOP, end),
        *panel("answers a second", lower, second, end),
        *time_axis(second + PANEL, end),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def beginning(title: str, more: str = "") -> list[str]:
    """Return the first elements of a picture; `more` is for those who cannot see it."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title + more)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>',
    ]


def rate(run: Run, how: str, end: float, who: str | None = None) -> Points:
    """Return answers of one kind a second, over time; of all, or of those clients."""
    counts = [0] * (int(end / STEP_S) + 1)
    for answer in run.answers:
        at = answer.arrived_at + answer.took_s
        if answer.how == how and at < end and who in (None, answer.who):
            counts[int(at / STEP_S)] += 1
    return [((index + 0.5) * STEP_S, count / STEP_S) for index, count in enumerate(counts[:-1])]


def _x(at: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at / end


def _states(samples: Sequence[Sample], end: float) -> list[str]:
    """Shade the time in each state but CLOSED over both panels, and name it."""
    parts: list[str] = []
    named: set[str] = set()
    for state, group in groupby(samples, key=lambda sample: sample.state):
        if state not in STATE_COLOURS:
            continue
        of_state = list(group)
        x, to = _x(of_state[0].at, end), _x(of_state[-1].at, end)
        parts.append(
            f'<rect x="{x:.1f}" y="{TOP}" width="{max(1.0, to - x):.1f}" '
            f'height="{2 * PANEL + GAP}" fill="{STATE_COLOURS[state]}" opacity=".15"/>'
        )
        if state not in named:
            # One above the other: the states of a short trouble lie close together.
            y = TOP - 6 - 14 * len(named)
            named.add(state)
            parts.append(f'<text x="{x + 3:.1f}" y="{y}">{state}</text>')
    return parts


def panel(title: str, lines: Mapping[str, Points], top: float, end: float) -> list[str]:
    """Draw lines over one time axis, with a legend."""
    highest = max((value for points in lines.values() for _, value in points), default=1.0) or 1.0
    bottom = top + PANEL
    parts = [
        f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}"/>',
        f'<line class="grid" x1="{LEFT}" y1="{top}" x2="{WIDTH - RIGHT}" y2="{top}"/>',
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{LEFT - 6}" y="{top + 4}" text-anchor="end">{highest:.0f}</text>',
        f'<text x="{LEFT}" y="{bottom + 16}">{title}:</text>',
    ]
    x = LEFT + 260
    for name, points in lines.items():
        colour = COLOURS[name]
        path = " ".join(
            f"{_x(at, end):.1f},{bottom - PANEL * value / highest:.1f}" for at, value in points
        )
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" style="fill:{colour}">{name}</text>')
        x += 80
    return parts


def time_axis(bottom: float, end: float) -> list[str]:
    """Write seconds below a panel."""
    step = 10 if end <= 120 else 60
    return [
        f'<text x="{_x(at, end):.1f}" y="{bottom + 34}" text-anchor="middle">{at} s</text>'
        for at in range(0, int(end) + 1, step)
    ]
