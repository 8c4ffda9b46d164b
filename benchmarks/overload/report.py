"""The figures as a table with the bars beside them, and as a file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any, Final

from benchmarks.overload.scenarios import Bar, Scenario
from benchmarks.overload.trial import Trial

# figure, heading, kind
COLUMNS: Final = (
    ("goodput", "goodput", "%"),
    ("fresh", "fresh", "%"),
    ("stored", "stored", "%"),
    ("trouble", "trouble", "%"),
    ("get_p50", "GET p50", "s"),
    ("get_p99", "GET p99", "s"),
    ("get_max", "GET max", "s"),
    ("post_ok", "POST ok", "%"),
    ("post_p99", "POST p99", "s"),
    ("first_s", "first", "s"),
    ("again_s", "again", "s"),
)
# Shown only where a scenario has a bar for them.
EXTRA: Final = {
    "dials_per_s": ("dials/s", "n"),
    "others_fresh": ("others fresh", "%"),
    "unknown_max": ("unstored max", "s"),
    "refused": ("refused", "%"),
    "changes": ("changes", "n"),
    "stored_per_failure": ("stored/failure", "n"),
}
# Of visitors beside a crawler: nothing else is measured there.
CRAWL: Final = (
    ("visitors_fresh", "fresh", "%"),
    ("visitors_stored", "stored", "%"),
    ("visitors_errors", "errors", "%"),
    ("visitors_p99", "p99", "s"),
    ("never_answered", "new pages", "%"),
    ("never_p95", "p95 of these", "s"),
    ("post_ok", "POST ok", "%"),
    ("crawler_share", "crawler", "%"),
    ("generator_lag_p99", "load late p99", "s"),
    ("others_cpu", "others' CPUs", "n"),
)
# Shown where the capacity was measured: it says what the machine was able to do meanwhile.
MEASURED: Final = (
    ("capacity", "capacity/s", "n"),
    ("others_cpu", "others' CPUs", "n"),
)
WIDTH: Final = 9


def show(kind: str, value: float | None) -> str:
    """Return a figure as the table shows it."""
    if value is None or isnan(value):
        return "-"
    match kind:
        case "%":
            return f"{100 * value:.1f} %" if 0 < value < 0.9995 else f"{100 * value:.0f} %"
        case "s":
            return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"
        case _:
            return f"{value:.1f}"


def block(scenario: Scenario, trials: Sequence[Trial]) -> str:
    """Return one scenario's rows: the heading, the bars, a row a peer; `!` marks a missed bar."""
    extra = [(name, *EXTRA[name]) for name in EXTRA if _has_bar(scenario, name)]
    columns = [*COLUMNS, *extra, *(MEASURED if scenario.measured else ())]
    if scenario.crawlers:
        columns = list(CRAWL)
    bars = {bar.figure: bar for bar in scenario.bars}
    lines = [
        f"{scenario.name}: {scenario.about}",
        _line("", ((heading, heading + " ") for _, heading, _ in columns)),
        _line("bar", ((head, _bar(bars.get(name), kind)) for name, head, kind in columns)),
    ]
    for trial in trials:
        if trial.error:
            lines.append(f"  {trial.peer:9} {trial.error.splitlines()[-1]}")
            continue
        missed = trial.missed()
        cells = (
            (heading, show(kind, trial.figures.get(name)) + ("!" if name in missed else " "))
            for name, heading, kind in columns
        )
        lines.append(_line(trial.peer, cells))
    return "\n".join(lines)


def _has_bar(scenario: Scenario, figure: str) -> bool:
    return any(bar.figure == figure for bar in scenario.bars)


def _bar(bar: Bar | None, kind: str) -> str:
    if bar is None:
        return ""
    return f"{'>=' if bar.high else '<='}{show(kind, bar.limit)}".replace(" ", "") + " "


def _line(name: str, cells: Iterable[tuple[str, str]]) -> str:
    """Return a row of (heading, cell), each as wide as its heading asks for."""
    texts = [f"{cell:>{max(WIDTH, len(heading) + 1) + 1}}" for heading, cell in cells]
    return f"  {name:9}" + "".join(texts)


def write(path: Path, about: dict[str, Any], trials: Iterable[Trial]) -> None:
    """Write all figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "scenario": trial.scenario.name,
            "peer": trial.peer,
            "figures": {k: None if v is None or isnan(v) else v for k, v in trial.figures.items()},
            "bars": [asdict(bar) for bar in trial.scenario.bars],
            "missed": [] if trial.error else trial.missed(),
            "application": trial.application,
            "seconds": trial.seconds,
            "error": trial.error,
        }
        for trial in trials
    ]
    path.write_text(json.dumps({"about": about, "trials": rows}, indent=1) + "\n")
