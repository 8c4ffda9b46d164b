"""Runs the scenarios and prints every figure beside its bar."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.simulation import evidence, worth
from benchmarks.simulation.ablation import RULES
from benchmarks.simulation.all_scenarios import SCENARIOS
from benchmarks.simulation.runner import CONTROLLERS, TOLERANCE, Job, prepare, run_all
from benchmarks.simulation.scenarios import Bar, Scenario
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.timeline import draw


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _worst(
    figures: dict[Job, list[float]], scenario: int, controller: str, index: int, bar: Bar
) -> float | None:
    worst: float | None = None
    for job, values in figures.items():
        if job.scenario == scenario and job.controller == controller:
            value = values[index]
            worst = value if worst is None else bar.worse(worst, value)
    return worst


def _table(
    figures: dict[Job, list[float]], scenarios: list[int], controllers: list[str]
) -> Iterator[tuple[str, bool]]:
    yield f"{'':34}{'bar':>9}" + "".join(f"{name:>12}" for name in controllers), False
    for number in scenarios:
        scenario = SCENARIOS[number]
        yield f"{scenario.name}: {scenario.about}", False
        for index, bar in enumerate(scenario.bars):
            worst = [_worst(figures, number, name, index, bar) for name in controllers]
            ours = worst[0]
            assert ours is not None
            failed = bar.misses(ours, TOLERANCE)
            verdict = "FAIL" if failed else "near" if bar.misses(ours) else "pass"
            yield (
                f"    {bar.label:30}{bar.text:>9}"
                + "".join(f"{_number(value):>12}" for value in worst)
                + f"  {verdict}",
                failed,
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation",
        description="Drive the overload control with a virtual clock through every scenario.",
    )
    parser.add_argument("--seeds", type=int, default=4, help="runs a scenario; the worst counts")
    parser.add_argument(
        "--first-seed", type=int, default=1, help="begin with this one: others than the rules know"
    )
    parser.add_argument("--quick", action="store_true", help="one seed of the telling scenarios")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SCENARIO",
        help="those whose name contains it; repeatable",
    )
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="SCENARIO",
        help="but not those whose name contains it; repeatable",
    )
    parser.add_argument(
        "--ablate",
        action="append",
        default=[],
        choices=sorted(RULES),
        metavar="RULE",
        help=f"switch a rule off: {', '.join(sorted(RULES))}",
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="what each rule (or those of --ablate) is worth: the bars that are missed without it",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another number for a constant of retter/breaker/constants.py",
    )
    parser.add_argument("--no-classic", action="store_true", help="without the classic breakers")
    parser.add_argument("--processes", type=int, default=None, help="default: one a core")
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="draw the time line of the first chosen scenario"
    )
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="draw how requests ended by the number in flight"
    )
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace) -> list[int]:
    def wanted(scenario: Scenario) -> bool:
        if any(word in scenario.name for word in arguments.skip):
            return False
        if arguments.only:
            return any(word in scenario.name for word in arguments.only)
        return scenario.quick or not arguments.quick

    return [number for number, scenario in enumerate(SCENARIOS) if wanted(scenario)]


def main() -> int:
    """Run, print, and say by the exit code whether a bar was missed by more than a tenth."""
    arguments = _arguments()
    scenarios = _chosen(arguments)
    if not scenarios:
        print("no scenario has such a name; there are:", ", ".join(s.name for s in SCENARIOS))
        return 2
    if arguments.ablation:
        rules = arguments.ablate or list(RULES)
        for line in worth.table(rules, scenarios, arguments.seeds, arguments.processes):
            print(line, flush=True)
        return 0
    if arguments.table:
        prepare(arguments.ablate, arguments.set)
        chosen = [SCENARIOS[number] for number in scenarios]
        arguments.table.write_text(evidence.draw(chosen, evidence.collect), encoding="utf-8")
        return 0
    controllers = ["retter"] if arguments.no_classic else list(CONTROLLERS)
    seeds = 1 if arguments.quick else arguments.seeds
    jobs = [
        Job(scenario=number, controller=name, seed=seed)
        for number in scenarios
        for name in controllers
        for seed in range(arguments.first_seed, arguments.first_seed + seeds)
    ]
    figures = run_all(jobs, arguments.processes, arguments.ablate, arguments.set)
    failures = 0
    for line, failed in _table(figures, scenarios, controllers):
        print(line)
        failures += failed
    print(f"worst of {seeds} seeds; {failures} bars missed by more than {TOLERANCE:.0%}")
    if arguments.svg:
        prepare(arguments.ablate, arguments.set)
        scenario = SCENARIOS[scenarios[0]]
        run = simulate(scenario.model, scenario.load, 1, CONTROLLERS["retter"])
        arguments.svg.write_text(draw(scenario, run), encoding="utf-8")
        print(f"time line of {scenario.name!r} in {arguments.svg}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
