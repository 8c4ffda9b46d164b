"""The rounds: for each scenario all peers are started, warmed, and loaded in turn."""

import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.perf import load, machine
from benchmarks.perf.figures import Window
from benchmarks.perf.idle import Idle, IdleFailed
from benchmarks.perf.load import LoadFailed
from benchmarks.perf.peers import (
    Peer,
    Retter,
    Running,
    Site,
    StartFailed,
    free_port,
    start_application,
)
from benchmarks.perf.results import Result, Series
from benchmarks.perf.scenarios import Heads, Mode, Scenario, request_bytes, warming_requests
from benchmarks.perf.watch import Watch

# More heads than any peer can be asked for in a window.
HEADS_A_WINDOW: Final = 5_000_000
WARM_S: Final = 10.0
BAR_WIDTH: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, how often, and with what beside."""

    rounds: int
    seconds: int
    system_calls: bool = True


class Progress:
    """One line that tells how far all is: rewritten on a terminal, else one for each scenario."""

    def __init__(self, windows: int) -> None:
        self._windows, self._done = max(1, windows), 0
        self._live = sys.stderr.isatty()
        self._began = time.monotonic()

    def scenario(self, scenario: Scenario, peers: Sequence[Peer]) -> None:
        """Tell what begins."""
        if not self._live:
            names = ", ".join(peer.name for peer in peers)
            print(f"{self._line()} {scenario.name}: {names}", file=sys.stderr, flush=True)

    def window(self, label: str) -> None:
        """Tell that a window begins."""
        if self._live:
            print(f"\r{self._line()} {label}\033[K", end="", file=sys.stderr, flush=True)
        self._done += 1

    def say(self, text: str) -> None:
        """Print a line that stays."""
        print(("\r\033[K" if self._live else "") + text, file=sys.stderr, flush=True)

    def _line(self) -> str:
        share = min(1.0, self._done / self._windows)
        done = round(share * BAR_WIDTH)
        spent = time.monotonic() - self._began
        left = f", {spent / share - spent:.0f} s left" if self._done else ""
        return f"[{'#' * done}{'-' * (BAR_WIDTH - done)}] {100 * share:3.0f} %{left}"


class Entrant:
    """A peer that runs in a scenario."""

    def __init__(self, peer: Peer, running: Running, series: Series, site: Site) -> None:
        self.peer, self.running, self.series = peer, running, series
        self.site, self.folder = site, site.folder

    def window(self, scenario: Scenario, plan: Plan, number: int, cores: machine.Cores) -> None:
        """Load it once and note what that has cost.

        Raises:
            LoadFailed: wrk failed, or the peer ended.
        """
        calibration_ms = machine.calibrate(cores.proxy)
        self.running.look_again()
        before = machine.cpu_time(self.running.pids)
        done = self.load(scenario, plan.seconds, number, cores)
        used = machine.cpu_time(self.running.pids).since(before)
        if not self.running.alive():
            raise LoadFailed(f"{self.peer.name} ended: {self.running.last_words()}")
        self.series.windows.append(
            Window(
                round=number,
                cpu_user_s=round(used.user_s, 3),
                cpu_system_s=round(used.system_s, 3),
                requests=done.requests,
                seconds=done.seconds,
                p50_us=done.p50_us,
                p99_us=done.p99_us,
                p999_us=done.p999_us,
                errors=done.errors,
                calibration_ms=round(calibration_ms, 3),
                trouble=done.trouble,
            )
        )

    def load(
        self, scenario: Scenario, seconds: int, number: int, cores: machine.Cores
    ) -> load.Load:
        """Load it without noting anything."""
        first = 1 if scenario.heads is Heads.BY_CONNECTION else 1 + number * HEADS_A_WINDOW
        return load.run_wrk(scenario, self.running.port, seconds, first, self.folder, cores.rest)


def warm(scenario: Scenario, entrant: Entrant) -> int:
    """Have the page answered, and kept where it is to come from the store.

    Returns:
        Octets of the answer's body.

    Raises:
        LoadFailed: It is not within WARM_S.
    """
    keeps = scenario.mode is Mode.STORE and isinstance(entrant.peer, Retter)
    load.ask_for_all(entrant.running.port, warming_requests(scenario))
    deadline = time.monotonic() + WARM_S
    while True:
        answer = load.ask(entrant.running.port, request_bytes(scenario, 0))
        if answer.status == 200 and (not keeps or answer.fields.get("x-retter") == "cache"):
            return answer.body_bytes
        if time.monotonic() > deadline:
            raise LoadFailed(f"not warm after {WARM_S:.0f} s: {answer.status} {answer.fields}")
        time.sleep(0.1)


@contextlib.contextmanager
def entrants(
    scenario: Scenario,
    peers: Sequence[Peer],
    cores: machine.Cores,
    folder: Path,
    skipped: list[str],
) -> Generator[list[Entrant]]:
    """Start the application and the peers; at the end stop all of them.

    What does not start or does not answer is left out, with a line in skipped. For the store the
    application is stopped once all are warm.
    """
    with contextlib.ExitStack() as started:
        application = start_application(folder / "application", cores.rest)
        started.callback(application.stop)
        sample = load.ask(application.port, request_bytes(scenario, 0))
        if sample.status != 200:
            raise LoadFailed(f"the application answers {sample.status}")
        found: list[Entrant] = []
        for peer in peers:
            own = folder / peer.name
            own.mkdir()
            site = Site(
                free_port(),
                application.port,
                own,
                scenario,
                free_port(),
                sample.head_bytes + sample.body_bytes,
            )
            command = peer.command(site)
            try:
                running = Running(peer.name, command, site.listen, own, cores.proxy)
                started.callback(running.stop)
                entrant = Entrant(peer, running, Series(scenario.name, peer.name, ""), site)
                entrant.series.command = shlex.join(command).replace(str(own), "DIR")
                time.sleep(0.2)  # what it does after it listens belongs to its start
                running.look_again()
                entrant.series.rss_start_bytes = machine.rss_bytes(running.pids)
                entrant.series.body_bytes = warm(scenario, entrant)
            except (StartFailed, LoadFailed) as error:
                skipped.append(f"{scenario.name} {peer.name}: {error}")
                continue
            found.append(entrant)
        if scenario.mode is Mode.STORE:
            waits_s = max((entrant.peer.waits_s for entrant in found), default=0)
            time.sleep(max(waits_s, scenario.waits_s))
            application.stop()
        yield found


def measure(
    scenario: Scenario,
    peers: Sequence[Peer],
    plan: Plan,
    cores: machine.Cores,
    progress: Progress,
    skipped: list[str],
) -> list[Series]:
    """Run all rounds of a scenario."""
    progress.scenario(scenario, peers)
    # In memory where the machine has room for files there: no peer waits for a disk.
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="retter-bench-", dir=in_memory) as name:
        os.chmod(name, 0o755)  # some peers change their user
        with (
            entrants(scenario, peers, cores, Path(name), skipped) as all_entrants,
            contextlib.ExitStack() as beside,
        ):
            if scenario.idle:
                for entrant in list(all_entrants):
                    try:
                        _hold_idle(scenario, entrant, cores, beside)
                    except IdleFailed as error:
                        skipped.append(f"{scenario.name} {entrant.peer.name}: {error}")
                        all_entrants.remove(entrant)
            for entrant in all_entrants:
                if scenario.watched and isinstance(entrant.peer, Retter) and entrant.peer.watched:
                    beside.enter_context(Watch(entrant.site.admin, cores.rest))
            beside.enter_context(machine.burners(scenario.burners))
            for number in range(plan.rounds):
                for entrant in list(all_entrants):
                    label = f"{scenario.name} {entrant.peer.name} {number + 1}/{plan.rounds}"
                    progress.window(label)
                    try:
                        entrant.window(scenario, plan, number, cores)
                    except LoadFailed as error:
                        skipped.append(f"{scenario.name} {entrant.peer.name}: {error}")
                        all_entrants.remove(entrant)
            for entrant in all_entrants:
                entrant.series.rss_after_bytes = machine.rss_bytes(entrant.running.pids)
            if plan.system_calls:
                for entrant in all_entrants:
                    _count_system_calls(scenario, entrant, plan, cores)
            return [entrant.series for entrant in all_entrants]


def _hold_idle(
    scenario: Scenario, entrant: Entrant, cores: machine.Cores, beside: contextlib.ExitStack
) -> None:
    # Loaded once before, so that memory of the load is not taken for that of idle connections.
    entrant.load(scenario, 1, 0, cores)
    before = machine.rss_bytes(entrant.running.pids)
    idle = beside.enter_context(Idle(entrant.running.port, scenario.idle, cores.rest))
    after = machine.rss_bytes(entrant.running.pids)
    if lost := idle.lost():
        raise IdleFailed(f"{lost} of {scenario.idle} idle connections were closed")
    entrant.series.idle_connections = scenario.idle
    entrant.series.idle_bytes = (after - before) / scenario.idle


def _count_system_calls(
    scenario: Scenario, entrant: Entrant, plan: Plan, cores: machine.Cores
) -> None:
    def load_once() -> int:
        return entrant.load(scenario, 1, plan.rounds, cores).requests

    with contextlib.suppress(LoadFailed):
        counted = machine.system_calls(entrant.running.pids, load_once, entrant.folder)
        entrant.series.system_calls = {
            name: round(count, 3) for name, count in counted.items() if count >= 0.001
        }


def run(
    scenarios: Sequence[Scenario], peers: Sequence[Peer], plan: Plan, flags: Sequence[str]
) -> Result:
    """Measure all scenarios with all peers that are installed."""
    cores = machine.cores()
    limit = machine.raise_descriptor_limit()
    result = Result(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=machine.commit(),
        flags=list(flags),
        seconds=plan.seconds,
        machine={**machine.describe_machine(), "open files": str(limit)},
        versions={"wrk": machine.first_line("wrk", "-v").partition(" [")[0]},
    )
    present = _present(peers, result)
    scenarios = [_within_limits(one) for one in scenarios]
    fields = [(one, [peer for peer in present if peer.serves(one)]) for one in scenarios]
    progress = Progress(sum(len(takers) for _, takers in fields) * plan.rounds)
    if not cores.apart:
        progress.say("Only one core: proxy, load and application share it, figures mean little.")
    os.sched_setaffinity(0, {cores.rest, cores.proxy})
    for scenario, takers in fields:
        if scenario.retter_options and not takers:
            result.skipped.append(
                f"{scenario.name}: {' '.join(scenario.retter_options)} is not an option"
            )
            continue
        result.series += measure(scenario, takers, plan, cores, progress, result.skipped)
    progress.say(f"{len(result.series)} series measured")
    for line in result.skipped:
        progress.say(f"skipped: {line}")
    return result


def _within_limits(scenario: Scenario) -> Scenario:
    """Return a scenario with as many idle connections as this machine permits beside the load."""
    possible = machine.connections_possible() - scenario.connections
    return replace(scenario, idle=min(scenario.idle, possible))


def _present(peers: Sequence[Peer], result: Result) -> list[Peer]:
    present: list[Peer] = []
    for peer in peers:
        if version := peer.version():
            result.versions[peer.name] = version
            present.append(peer)
        else:
            result.skipped.append(f"{peer.name}: not installed")
    return present
