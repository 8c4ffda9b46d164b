"""Takeovers (SIGUSR2) in a row, at half load and at five times the capacity: `make takeover`.

    python -m benchmarks.overload.takeover [--takeovers N] [--every SECONDS] [--load X ...]
                                           [--service-ms MS]

Each load comes three times with the same arrivals: to one process, to one process beside which as
many others start on its core, serve nobody and end again, and to a chain of successors. What the
visitors get should be the same in the last two: as many 503s, as many stored responses, and no
request without a response. With a slow application (`--service-ms`) the processors have little to
do, so the starts cost nothing, and all three should be the same.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from benchmarks.overload.peers import Retter, StartFailed, cores, free_port
from benchmarks.overload.scenarios import SERVICE_MS, Scenario
from benchmarks.overload.trial import Stage, Trial, pin_this_process
from retter.demo.load_report import LoadReport, Summary, summarize
from retter.demo.terminal import raise_file_limit

CALM_S: Final = 4.0
BEGIN_S: Final = 1.0  # before the first takeover
AFTER_S: Final = 2.0
SERVES_S: Final = 30.0  # for one successor to serve
POLL_S: Final = 0.02
LOADS: Final = (0.5, 5.0)


class JsonRetter(Retter):
    """RETTER, whose log can be read by this program."""

    def command(
        self, listen: int, application: int, folder: Path, *, workers: int
    ) -> Sequence[str]:
        """Return its command line."""
        before = super().command(listen, application, folder, workers=workers)
        return (*before, "--log-format", "json")


class Counts(NamedTuple):
    """The answers that visitors got during the stress."""

    gets: int
    fresh: int
    stored: int
    shed: int  # 503
    failed: int  # other errors that were answered
    lost: int  # requests of all methods without a response
    posts: int
    posts_answered: int


class TakeoverStage(Stage):
    """A trial during which one process follows another."""

    def __init__(
        self, scenario: Scenario, folder: Path, *, seed: int, every_s: float, count: int,
        starts: int,
    ):  # fmt: skip
        super().__init__(scenario, JsonRetter(), folder, seed=seed, pages=scenario.pages)
        self._log = folder / "proxy.log"
        self._every_s = every_s
        self._count = count
        self._starts = starts
        self.counts: Counts | None = None
        self.took_s: list[float] = []  # from each signal until its successor served
        self.cold: list[dict[str, Any]] = []

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return what all the processes have logged of something."""
        lines = self._log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if f'"{event}"' in line and line[:1] == "{"]
        return [record for record in found if record["event"] == event]

    async def _load(self, on_second: Callable[[int, Summary], None] | None) -> Any:
        others = self._take_over() if self._count else self._start_others()
        takeovers = asyncio.ensure_future(others)
        try:
            outcome = await super()._load(on_second)
        finally:
            takeovers.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await takeovers
        self.counts = counts_of(self._scenario, outcome.report)
        self.cold = self.records("takeover-cold")
        return outcome

    async def _take_over(self) -> None:
        await asyncio.sleep(CALM_S + BEGIN_S)
        for _ in range(self._count):
            begun, serving = time.monotonic(), self.records("serving")
            os.kill(serving[-1]["pid"], signal.SIGUSR2)
            async with asyncio.timeout(SERVES_S):
                while len(self.records("serving")) == len(serving):  # noqa: ASYNC110 - a file
                    await asyncio.sleep(POLL_S)
            self.took_s.append(time.monotonic() - begun)
            await asyncio.sleep(max(0.0, self._every_s - self.took_s[-1]))

    async def _start_others(self) -> None:
        """Start processes when and where a successor would, and end them as soon as they serve."""
        await asyncio.sleep(CALM_S + BEGIN_S)
        core = cores()[0]
        for _ in range(self._starts):
            begun = time.monotonic()
            child = await asyncio.create_subprocess_exec(
                *(() if core is None else ("taskset", "-c", core)),
                sys.executable, "-m", "retter", "--listen", f"127.0.0.1:{free_port()}",
                "--upstream", f"127.0.0.1:{self._application.port}", "--admin", "off",
                "--log-format", "json", stdout=DEVNULL, stderr=PIPE,
            )  # fmt: skip
            assert child.stderr is not None
            while line := await child.stderr.readline():
                if b'"serving"' in line:
                    child.terminate()
            await child.wait()
            await asyncio.sleep(max(0.0, self._every_s - (time.monotonic() - begun)))

    def stop(self) -> None:
        """End all processes."""
        if self._log.exists():
            for record in self.records("serving"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record["pid"], signal.SIGTERM)
        super().stop()


def counts_of(scenario: Scenario, report: LoadReport) -> Counts:
    """Count what came during the stress."""
    total = summarize(
        report.between(scenario.calm_s, scenario.calm_s + scenario.stress_s), scenario.stress_s
    )
    return Counts(
        gets=total.gets,
        fresh=total.fresh,
        stored=total.stored,
        shed=total.shed,
        failed=total.failed,
        lost=sum(total.errors.values()),
        posts=total.posts,
        posts_answered=total.posts_answered,
    )


def scenario_of(load: float, stress_s: float, service_ms: float = SERVICE_MS) -> Scenario:
    """Return the load."""
    return Scenario(
        name=f"takeover-{load:g}x",
        about=f"{load:g} times the capacity",
        rate=load,
        bars=(),
        calm_s=CALM_S,
        stress_s=stress_s,
        after_s=AFTER_S,
        service_ms=service_ms,
    )


def run_one(
    load: float, takeovers: int, starts: int, wanted: argparse.Namespace
) -> tuple[TakeoverStage, Trial]:
    """Run one load, with so many takeovers, or starts beside it. Raises StartFailed."""
    stress_s = BEGIN_S + wanted.takeovers * wanted.every
    scenario = scenario_of(load, stress_s, wanted.service_ms)
    label = f"{load:g}x, {takeovers} takeovers" if not starts else f"{load:g}x, {starts} starts"

    def on_second(second: int, figures: Summary) -> None:
        print(
            f"\r{label}: {second:3d} of {scenario.seconds():.0f} s, fresh {figures.fresh:4d} "
            f"stored {figures.stored:4d} 503 {figures.shed:3d}\033[K",
            end="" if sys.stderr.isatty() else "\n",
            file=sys.stderr,
            flush=True,
        )

    with TemporaryDirectory(prefix="takeover-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        stage = TakeoverStage(
            scenario,
            folder,
            seed=wanted.seed,
            every_s=wanted.every,
            count=takeovers,
            starts=starts,
        )
        try:
            stage.start()
            trial = stage.play(on_second)
        finally:
            stage.stop()
    return stage, trial


def row(load: float, takeovers: int, starts: int, stage: TakeoverStage) -> str:
    """Return one line of the table."""
    counts = stage.counts
    assert counts is not None, "it has been played"
    took = f"{max(stage.took_s):.1f} s" if stage.took_s else "-"
    return (
        f"| {load:g}x | {len(stage.took_s)} of {takeovers} | {starts} | {counts.gets} | "
        f"{counts.fresh} | {counts.stored} | {counts.shed} | {counts.failed} | {counts.lost} | "
        f"{counts.posts_answered} of {counts.posts} | {len(stage.cold)} | {took} |"
    )


HEADER: Final = (
    "| load | takeovers | starts beside it | GETs | fresh | stored | 503 | other errors | "
    "without a response | POSTs | cold | slowest |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all and print the table."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.overload.takeover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("--takeovers", type=int, default=20, help="of each load (default 20)")
    add("--every", type=float, default=2.5, help="seconds between two (default 2.5)")
    add("--load", type=float, action="append", help="times the capacity (default 0.5 and 5)")
    add("--service-ms", type=float, default=SERVICE_MS, help=f"of a page (default {SERVICE_MS:g})")
    add("--seed", type=int, default=1, help="of the arrivals and service times (default 1)")
    wanted = options.parse_args(arguments)
    raise_file_limit()
    pin_this_process()
    rows = [HEADER]
    for load in wanted.load or LOADS:
        for takeovers, starts in ((0, 0), (0, wanted.takeovers), (wanted.takeovers, 0)):
            try:
                stage, _ = run_one(load, takeovers, starts, wanted)
            except StartFailed as failed:
                print(f"\ncannot start: {failed}", file=sys.stderr)
                return 1
            rows.append(row(load, takeovers, starts, stage))
            print(f"\n{rows[-1]}", file=sys.stderr, flush=True)
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
