"""Prints the figures of one worker, two and four side by side.

Run as `python -m benchmarks.simulation.side_by_side` (`make simulate-workers`).
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from benchmarks.simulation.ablation import Chosen
from benchmarks.simulation.all_scenarios import SCENARIOS
from benchmarks.simulation.runner import CONTROLLERS, TOLERANCE
from benchmarks.simulation.scenarios import Bar, Scenario
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.worker_scenarios import KILLED, TELLING
from benchmarks.simulation.workers import TICK_S

Task = tuple[int, int, int, bool]  # scenario, workers, seed, by client

_ALL = (*SCENARIOS, *KILLED)


def figures_of(task: Task) -> list[float]:
    """Run one scenario with so many workers."""
    number, Chosen.workers, seed, Chosen.by_client = task
    scenario = _ALL[number]
    run = simulate(scenario.model, scenario.load, seed, CONTROLLERS["retter"])
    return [bar.measure(run) for bar in scenario.bars]


def is_worse(bar: Bar, value: float, alone: float | None) -> bool:
    """Return whether a figure misses its bar, and is more than a tenth worse than one worker's.

    A worker hears of what happens in another one on its next tick, so seconds may be a tick more.
    """
    if bar.label.endswith(", s"):
        value -= TICK_S
    if not bar.misses(value, TOLERANCE):
        return False
    if alone is None:
        return True
    if bar.at_most is not None:
        return value > alone * (1 + TOLERANCE) + 1e-9
    return value < alone * (1 - TOLERANCE) - 1e-9


def _rows(
    scenario: Scenario, counts: list[int], figures: dict[int, list[list[float]]]
) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a scenario. A worker alone takes no part where workers are killed."""
    yield f"{scenario.name}: {scenario.about}", False
    for index, bar in enumerate(scenario.bars):
        worst: dict[int, float] = {}
        for count, runs in figures.items():
            for run in runs:
                worst[count] = bar.worse(worst.get(count, run[index]), run[index])
        failed = any(is_worse(bar, value, worst.get(1)) for value in worst.values())
        cells = "".join(
            f"{worst[count]:>10.3g}" if count in worst else f"{'-':>10}" for count in counts
        )
        yield f"    {bar.label:34}{bar.text:>9}{cells}  {'WORSE' if failed else 'ok'}", failed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation.side_by_side",
        description="Drive the shared judgement of several workers through telling scenarios.",
    )
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers, with commas")
    parser.add_argument("--seeds", type=int, default=1, help="runs a scenario; the worst counts")
    parser.add_argument("--only", action="append", default=[], help="part of a name; repeatable")
    parser.add_argument("--every", action="store_true", help="all scenarios, not the telling ones")
    parser.add_argument(
        "--by-chance",
        action="store_true",
        help="a client's requests come to any worker, not all to one",
    )
    parser.add_argument("--processes", type=int, default=None, help="default: one a core")
    return parser.parse_args()


def main() -> int:
    """Run, print, and say by the exit code whether a figure is worse than one worker's."""
    arguments = _arguments()
    counts = [int(count) for count in arguments.workers.split(",")]
    chosen = [
        number
        for number, scenario in enumerate(_ALL)
        if (arguments.every or number >= len(SCENARIOS) or scenario.name in TELLING)
        and (not arguments.only or any(word in scenario.name for word in arguments.only))
    ]
    failures = 0
    print(f"{'':38}{'bar':>9}" + "".join(f"{count:>10}" for count in counts))
    with ProcessPoolExecutor(arguments.processes) as pool:
        tasks = [
            (number, count, seed, not arguments.by_chance)
            for number in chosen
            for count in counts
            for seed in range(1, arguments.seeds + 1)
            if number < len(SCENARIOS) or count > 1
        ]
        done = dict(zip(tasks, pool.map(figures_of, tasks), strict=True))
    for number in chosen:
        figures: dict[int, list[list[float]]] = {}
        for task, values in done.items():
            if task[0] == number:
                figures.setdefault(task[1], []).append(values)
        for line, failed in _rows(_ALL[number], counts, figures):
            print(line)
            failures += failed
    print(f"worst of {arguments.seeds} seeds; {failures} figures miss their bar and are worse")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
