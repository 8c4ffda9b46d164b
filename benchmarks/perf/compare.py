"""Two results side by side: what became cheaper or dearer, and what is noise."""

from benchmarks.perf.figures import Change, change
from benchmarks.perf.report import columns
from benchmarks.perf.results import Result, Series

HEADINGS = ("scenario", "peer", "before", "after", "factor", "range", "unit", "verdict")


def differences(before: Result, after: Result) -> list[tuple[Series, Change, bool]]:
    """Return each series that both have, its change, and whether it is one of ratios to nginx."""
    found: list[tuple[Series, Change, bool]] = []
    for old in before.series:
        new = after.find(old.scenario, old.peer)
        if new is None or not old.windows:
            continue
        base_old, base_new = before.base(old.scenario), after.base(old.scenario)
        if base_old is None or base_new is None or base_old.peer == old.peer:
            found.append((old, change(old.windows, new.windows), False))
            continue
        ratios = change(old.windows, new.windows, base_old.windows, base_new.windows)
        found.append((old, ratios, True))
    return found


def comparison(before: Result, after: Result) -> str:
    """Return the table of all differences, with what it is read by."""
    rows: list[list[str]] = [list(HEADINGS)]
    for series, one, relative in differences(before, after):
        digits = 2 if relative else 1
        rows.append(
            [
                series.scenario,
                series.peer,
                f"{one.before:.{digits}f}",
                f"{one.after:.{digits}f}",
                f"{one.factor:.2f}",
                f"[{one.low:.2f}-{one.high:.2f}]",
                "x nginx" if relative else "CPU us",
                one.verdict,
            ]
        )
    return (
        f"before: {before.commit} {before.began}\nafter:  {after.commit} {after.began}\n"
        f"speed of the machine, after to before: {_speed(before, after)}\n\n{columns(rows)}"
    )


def _speed(before: Result, after: Result) -> str:
    """Return how the calibration loop's best times compare: above 1 the machine was slower."""
    best = [
        min((window.calibration_ms for one in result.series for window in one.windows), default=0.0)
        for result in (before, after)
    ]
    return f"{best[1] / best[0]:.2f}" if best[0] else "unknown"
