"""One scenario against one peer: start, warm, load, turn the knobs, stop, and count."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.overload.applications import Application, DemoShop
from benchmarks.overload.blog import Blog
from benchmarks.overload.dials import Dials
from benchmarks.overload.peers import (
    Nothing,
    Peer,
    Process,
    StartFailed,
    cores,
    family_cpu_s,
    free_port,
    machine_cpu_s,
)
from benchmarks.overload.php import PhpShop
from benchmarks.overload.scenarios import Action, Behind, Event, Scenario
from retter.demo.load_generator import run_load
from retter.demo.load_plan import Burst, LoadPlan, Phase
from retter.demo.load_report import LoadReport, Sample, Summary, percentile, summarize
from retter.demo.terminal import run

TIMEOUT_S: Final = 10.0  # when a client leaves; two of them and the shop is lost
SETTLE_S: Final = 1.5  # longer than the second for which the peers' stores are fresh
AGAIN_SHARE: Final = 0.99
AGAIN_WINDOW_S: Final = 1.0
AGAIN_STEP_S: Final = 0.1
WARMED_SHARE: Final = 0.95  # below it, the figures would say nothing about stored answers
PAGES_QUICK: Final = 100

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one scenario with one peer."""

    scenario: Scenario
    peer: str
    figures: Figures
    application: dict[str, Any]
    seconds: list[dict[str, int]]  # fresh, stored, trouble and POSTs of each second
    error: str = ""

    def missed(self) -> list[str]:
        """Return the names of the figures that do not meet their bars."""
        # A figure that is not there says nothing about this peer; None was never reached.
        return [
            bar.figure
            for bar in self.scenario.bars
            if bar.figure in self.figures and not bar.met(self.figures[bar.figure])
        ]


def pages_of(scenario: Scenario, pages: int, page: str = "/product/") -> tuple[str, ...]:
    """Return the paths that are asked for, those of the other route last."""
    others = round(pages * scenario.other_route)
    shop = [f"{page}{n}" for n in range(1, pages - others + 1)]
    return (*shop, *(f"/api/product/{n}" for n in range(1, others + 1)))


def application_of(scenario: Scenario, folder: Path, *, seed: int) -> Application:
    """Return the application behind the peer, to be started."""
    match scenario.behind:
        case Behind.PHP:
            return PhpShop(folder)
        case Behind.BLOG:
            return Blog(folder, core=cores()[1])
        case Behind.DEMO:
            return DemoShop(scenario, folder, seed=seed)


def run_trial(
    scenario: Scenario,
    peer: Peer,
    *,
    seed: int,
    pages: int | None = None,
    on_second: Callable[[int, Summary], None] | None = None,
) -> Trial:
    """Run it and return its figures. Raises StartFailed when a program does not start."""
    with tempfile.TemporaryDirectory(prefix="overload-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # some peers give up their rights
        stage = Stage(scenario, peer, folder, seed=seed, pages=pages or scenario.pages)
        try:
            stage.start()
            return stage.play(on_second)
        finally:
            stage.stop()


class Outcome(NamedTuple):
    """The counts while the load lasted."""

    report: LoadReport
    changes: float | None  # of the circuit's state; None: the peer has none
    dials: float  # connections that the application refused
    cpu_s: float  # of the proxy
    others_cpu_s: float  # of programs that are not part of this


class Stage:
    """The application and the peer of one trial, with files in one folder."""

    def __init__(
        self, scenario: Scenario, peer: Peer, folder: Path, *, seed: int, pages: int
    ) -> None:
        self._scenario = scenario
        self._peer = peer
        self._folder = folder
        self._seed = seed
        self._application = application_of(scenario, folder, seed=seed)
        self._targets = pages_of(scenario, pages, self._application.page)
        covered = 0.0 if scenario.new_pages else scenario.covered
        self._covered = round(len(self._targets) * covered)
        self._proxy: Process | None = None
        self._port = 0

    def start(self) -> None:
        """Start the application and the peer. Raises StartFailed."""
        self._application.start()
        if isinstance(self._peer, Nothing):
            self._port = self._application.port
        else:
            self._port = free_port()
            self._start_proxy()

    def stop(self) -> None:
        """End both."""
        if self._proxy is not None:
            self._proxy.stop()
        self._application.stop()

    def play(self, on_second: Callable[[int, Summary], None] | None) -> Trial:
        """Warm, load and count."""
        if self._scenario.knobs:
            self._application.turn(self._scenario.knobs)
        self._application.count_anew()
        outcome: list[Outcome] = []

        async def go() -> int:
            outcome.append(await self._load(on_second))
            return 0

        run(go)
        report, changes, dials, cpu_s, others_cpu_s = outcome[0]
        if report.warmed < WARMED_SHARE * self._covered:
            words = self._proxy.last_words() if self._proxy is not None else ""
            raise StartFailed(f"{report.warmed} of {self._covered} pages were answered: {words}")
        capacity = self._application.capacity
        figures = figures_of(self._scenario, report, self._covered, capacity)
        application = self._application.stats()
        if changes is not None:
            figures["changes"] = changes
        if failed := application.get("failed"):
            figures["stored_per_failure"] = report.summary().stored / failed
        figures["dials_per_s"] = dials / self._scenario.stress_s
        figures["proxy_cpu"] = cpu_s / self._scenario.seconds()
        figures["others_cpu"] = others_cpu_s / self._scenario.seconds()
        return Trial(
            scenario=self._scenario,
            peer=self._peer.name,
            figures=figures,
            application=application,
            seconds=seconds_of(report),
        )

    def _start_proxy(self) -> None:
        command = self._peer.command(
            self._port, self._application.port, self._folder, workers=self._scenario.connections
        )
        if self._scenario.store_on_disk and self._peer.name == "retter":
            command = (*command, "--store", str(self._folder / "store"))
        log = self._folder / "proxy.log"
        self._proxy = Process(command, core=cores()[0], log=log)
        self._proxy.wait_for_port(self._port)

    def _plan(self) -> LoadPlan:
        scenario, capacity = self._scenario, self._application.capacity
        return LoadPlan(
            url=f"http://127.0.0.1:{self._port}",
            phases=(
                Phase(scenario.calm_s, scenario.calm_rate * capacity),
                Phase(scenario.stress_s, scenario.rate * capacity),
                Phase(scenario.after_s, scenario.after_rate * capacity),
            ),
            bursts=(Burst(scenario.calm_s, scenario.burst),) if scenario.burst else (),
            targets=self._targets,
            new_pages=scenario.new_pages,
            warm=self._targets[: self._covered],
            settle_s=SETTLE_S,
            post_share=scenario.post_share,
            post_target=self._application.post_target,
            post_body=self._application.post_body,
            timeout_s=TIMEOUT_S,
            seed=self._seed,
        )

    async def _load(self, on_second: Callable[[int, Summary], None] | None) -> Outcome:
        tasks: list[asyncio.Task[Any]] = []
        changes_before: float | None = None
        cpu_before = others_before = 0.0

        def started() -> None:
            nonlocal changes_before, cpu_before, others_before
            changes_before = self._peer.changes()
            cpu_before, others_before = self._cpu_s(), self._others_cpu_s()
            loop = asyncio.get_running_loop()
            begin = loop.time() + self._scenario.calm_s
            tasks.extend(loop.create_task(self._cause(e, begin)) for e in self._scenario.events)
            tasks.append(loop.create_task(self._count_dials(begin)))

        report = await run_load(self._plan(), on_second=on_second, on_start=started)
        cpu_s, others_cpu_s = self._cpu_s() - cpu_before, self._others_cpu_s() - others_before
        results = await asyncio.gather(*tasks)
        changes = self._peer.changes()
        if changes is not None and changes_before is not None:
            changes -= changes_before
        return Outcome(report, changes, float(results[-1]), cpu_s, others_cpu_s)

    def _cpu_s(self) -> float:
        return self._proxy.cpu_s() if self._proxy is not None else 0.0

    def _others_cpu_s(self) -> float:
        """Return the processor seconds that programs have used which are not part of this."""
        # All that was started here descends from this process.
        return machine_cpu_s() - family_cpu_s(os.getpid())

    async def _cause(self, event: Event, begin: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(begin + event.at_s - loop.time())
        if event.knobs:
            await asyncio.to_thread(self._application.turn, event.knobs)
        if event.action is not None and self._proxy is not None:
            end = self._proxy.stop if event.action is Action.RESTART_PROXY else self._proxy.kill
            await asyncio.to_thread(self._restart_proxy, end)

    def _restart_proxy(self, end: Callable[[], None]) -> None:
        end()
        self._start_proxy()

    async def _count_dials(self, begin: float) -> float:
        """Return the connections that were refused on this machine during the stress."""
        if not self._scenario.count_dials:
            return 0.0
        loop = asyncio.get_running_loop()
        # A little inside, so that neither the death nor the revival is counted.
        await asyncio.sleep(begin + 0.2 - loop.time())
        dials = Dials(self._application.port)
        await asyncio.sleep(begin + self._scenario.stress_s - 0.2 - loop.time())
        return float(dials.stop())


def figures_of(scenario: Scenario, report: LoadReport, covered: int, capacity: float) -> Figures:
    """Return the figures of the stress, and how it began and ended."""
    begin, end = scenario.calm_s, scenario.calm_s + scenario.stress_s
    samples = report.between(begin, end)
    total = summarize(samples, scenario.stress_s)
    gets = [s for s in samples if not s.post]
    known = [s for s in gets if s.target < covered]
    unknown = [s for s in gets if s.target >= covered]
    others = round(len(report.plan.targets) * (1 - scenario.other_route))
    healthy = [s for s in gets if s.target < others]
    trouble = sum(not s.answered for s in known)
    return {
        "offered": len(samples) / scenario.stress_s / capacity,
        "goodput": total.goodput / capacity,
        "capacity": capacity,
        "fresh": _share(total.fresh, total.gets),
        "stored": _share(total.stored, total.gets),
        "trouble": _share(trouble, len(known)),
        "refused": _share(sum(not s.answered for s in gets), len(gets)),
        "get_p50": percentile([s.latency for s in known], 0.5),
        "get_p99": percentile([s.latency for s in known], 0.99),
        "get_max": max((s.latency for s in known), default=None),
        "post_ok": _share(total.posts_answered, total.posts) if total.posts else 1.0,
        "post_p99": total.post_p99 if total.posts_answered else None,
        "first_s": _first_stored(report, begin),
        "again_s": fresh_again(report.samples, end, report.plan.seconds),
        "others_fresh": _share(sum(s.fresh for s in healthy), len(healthy)),
        "unknown_max": max((s.latency for s in unknown), default=None),
        "unknown_shed": _share(sum(s.status == 503 for s in unknown), len(unknown)),
        "stored_age_p50": total.stored_age_p50 if total.stored else None,
        "stored_age_max": total.stored_age_max if total.stored else None,
        "warmed": float(report.warmed),
        "generator_lag_p99": report.generator_lag_p99,
    }


def _share(count: int, of: int) -> float:
    return count / of if of else 0.0


def _first_stored(report: LoadReport, begin: float) -> float | None:
    ends = [s.at + s.latency for s in report.samples if s.at >= begin and not s.post and s.stored]
    return min(ends) - begin if ends else None


def fresh_again(samples: Sequence[Sample], end: float, last: float) -> float | None:
    """Return the seconds from `end` to the first second with enough fresh GETs; None: never."""
    gets = sorted((s.at, s.fresh) for s in samples if not s.post and s.at >= end)
    steps = int((last - AGAIN_WINDOW_S - end) / AGAIN_STEP_S + 1e-9)
    for step in range(steps + 1):
        start = end + step * AGAIN_STEP_S
        window = [fresh for at, fresh in gets if start <= at < start + AGAIN_WINDOW_S]
        if window and sum(window) >= AGAIN_SHARE * len(window):
            return step * AGAIN_STEP_S
    return None


def seconds_of(report: LoadReport) -> list[dict[str, int]]:
    """Return the time line, by the second of the intended start."""
    return [
        {
            "fresh": second.fresh,
            "stored": second.stored,
            "trouble": second.get_trouble,
            "posts": second.posts_answered,
        }
        for second in report.per_second()
    ]


def pin_this_process() -> None:
    """Keep this process, which makes the load, off the proxy's core."""
    core = cores()[1]
    if core is not None:
        os.sched_setaffinity(0, {int(core)})


def about_this_run() -> dict[str, Any]:
    """Return what a reader of the figures wants to know of the machine."""
    import platform

    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "pinned": cores()[0] is not None,
    }
