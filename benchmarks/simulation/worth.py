"""What each rule is worth: the bars that are missed without it, and the one missed most."""

from collections.abc import Iterator

from benchmarks.simulation.all_scenarios import SCENARIOS
from benchmarks.simulation.runner import TOLERANCE, Job, run_all
from benchmarks.simulation.scenarios import Bar

Figures = dict[tuple[int, int], float]  # the worst, by the numbers of scenario and bar


def table(
    rules: list[str], scenarios: list[int], seeds: int, processes: int | None
) -> Iterator[str]:
    """Yield a row a rule."""
    jobs = [
        Job(scenario=number, controller="retter", seed=seed)
        for number in scenarios
        for seed in range(1, seeds + 1)
    ]
    with_all = _worst(run_all(jobs, processes, [], []))
    yield "| rule switched off | bars missed | where it shows | with | without |"
    yield "|---|---|---|---|---|"
    for rule in rules:
        yield _row(rule, with_all, _worst(run_all(jobs, processes, [rule], [])))


def _worst(figures: dict[Job, list[float]]) -> Figures:
    worst: Figures = {}
    for job, values in figures.items():
        for index, value in enumerate(values):
            bar = SCENARIOS[job.scenario].bars[index]
            at = (job.scenario, index)
            worst[at] = bar.worse(worst[at], value) if at in worst else value
    return worst


def _row(rule: str, with_all: Figures, without: Figures) -> str:
    missed = [
        at
        for at, value in without.items()
        if _bar(at).misses(value, TOLERANCE) and not _bar(at).misses(with_all[at], TOLERANCE)
    ]
    if not missed:
        return f"| `{rule}` | 0 | nowhere | | |"
    most = max(missed, key=lambda at: _distance(_bar(at), without[at]))
    where = f"{SCENARIOS[most[0]].name}: {_bar(most).label}"
    return f"| `{rule}` | {len(missed)} | {where} | {with_all[most]:.3g} | {without[most]:.3g} |"


def _bar(at: tuple[int, int]) -> Bar:
    return SCENARIOS[at[0]].bars[at[1]]


def _distance(bar: Bar, value: float) -> float:
    """How far the value misses the bar: a multiple of it, or the value where the bar is 0."""
    if bar.at_most is not None:
        return value / bar.at_most if bar.at_most else value
    return (bar.at_least or 0.0) / max(value, 1e-3)
