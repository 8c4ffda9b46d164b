"""Runs scenarios against controllers in several processes."""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from time import perf_counter

from benchmarks.simulation.ablation import RULES, Chosen, set_constant
from benchmarks.simulation.all_scenarios import SCENARIOS
from benchmarks.simulation.classic import Classic, ErrorBreaker, SlowCallBreaker
from benchmarks.simulation.proxy import Controller
from benchmarks.simulation.run import Run
from benchmarks.simulation.simulate import simulate
from benchmarks.simulation.workers import Workers
from retter.breaker import BreakerSettings, CircuitBreaker, Transition

TOLERANCE = 0.1  # of a bar: seeds differ


def _retter(now: float, run: Run) -> Controller:
    def note(transition: Transition) -> None:
        run.transitions.append((transition.at, transition.after.value, transition.cause.value))

    if Chosen.workers > 1:
        return Workers(now, run, Chosen.workers, by_client=Chosen.by_client)
    return CircuitBreaker(BreakerSettings(fairness=Chosen.fairness), now, note, b"simulated")


def _error_breaker(now: float, run: Run) -> Classic:
    return ErrorBreaker(now)


def _slow_call_breaker(now: float, run: Run) -> Classic:
    return SlowCallBreaker(now)


CONTROLLERS: dict[str, Callable[[float, Run], Controller]] = {
    "retter": _retter,
    "errors": _error_breaker,
    "slow calls": _slow_call_breaker,
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One scenario, one controller, one seed."""

    scenario: int
    controller: str
    seed: int


def prepare(ablate: list[str], settings: list[str]) -> None:
    """Switch rules off and try other numbers, for this process."""
    for rule in ablate:
        RULES[rule]()
    for setting in settings:
        name, _, value = setting.partition("=")
        set_constant(name, float(value))


def _do(job: Job) -> tuple[Job, list[float]]:
    scenario = SCENARIOS[job.scenario]
    run = simulate(scenario.model, scenario.load, job.seed, CONTROLLERS[job.controller])
    return job, [bar.measure(run) for bar in scenario.bars]


def _progress(done: int, total: int, began: float) -> None:
    if sys.stderr.isatty():
        filled = 40 * done // total
        bar = "#" * filled + "." * (40 - filled)
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r[{bar}] {done}/{total} {perf_counter() - began:.0f} s {end}")
        sys.stderr.flush()


def run_all(
    jobs: list[Job], processes: int | None, ablate: list[str], settings: list[str]
) -> dict[Job, list[float]]:
    """Return the figures of each job."""
    figures: dict[Job, list[float]] = {}
    began = perf_counter()
    with ProcessPoolExecutor(processes, initializer=prepare, initargs=(ablate, settings)) as pool:
        # The long ones first, so that all processes end at the same time.
        longest_first = sorted(jobs, key=lambda job: -SCENARIOS[job.scenario].load.phases[-1][0])
        for future in as_completed([pool.submit(_do, job) for job in longest_first]):
            job, values = future.result()
            figures[job] = values
            _progress(len(figures), len(jobs), began)
    return figures
