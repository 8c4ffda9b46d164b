"""`python -m benchmarks.overload`: the scenarios, the peers, a progress bar, the table."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.overload import blog, fastcgi
from benchmarks.overload.crawl import run_crawl
from benchmarks.overload.peers import OTHERS, PEERS, Peer, StartFailed, cores
from benchmarks.overload.report import block, write
from benchmarks.overload.scenarios import QUICK, SCENARIOS, Behind, Scenario, quick
from benchmarks.overload.trial import (
    PAGES_QUICK,
    Trial,
    about_this_run,
    pin_this_process,
    run_trial,
)
from retter.demo.load_plan import LoadError
from retter.demo.load_report import Summary
from retter.demo.terminal import raise_file_limit

RESULTS: Final = Path(__file__).parent.parent / "results"
BAR_WIDTH: Final = 24


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    peers = ", ".join(peer.name for peer in (*PEERS, *OTHERS))
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.overload",
        description="RETTER and its peers under overload, over real sockets on this machine.",
    )
    add = options.add_argument
    add(
        "--only",
        metavar="NAMES",
        help=f"scenarios, or beginnings of their names, separated by commas: {names}",
    )
    add(
        "--peers",
        metavar="NAMES",
        help=f"separated by commas: {peers} (default: the installed "
        "ones; with --quick retter alone)",
    )
    add(
        "--quick",
        action="store_true",
        help="about a minute: " + ", ".join(QUICK) + ", in short, "
        "over fewer pages; a first impression, no verdict",
    )
    add("--seed", type=int, default=1, help="of the arrivals and service times (default 1)")
    add(
        "--json",
        metavar="FILE",
        type=Path,
        help="where the figures go (default: benchmarks/results/overload-TIME.json)",
    )
    add("--list", action="store_true", help="list scenarios and peers, and stop")
    return options


class Progress:
    """One line that tells how far all is, rewritten on a terminal, else one a trial."""

    def __init__(self, plan: Sequence[tuple[Scenario, Peer]]) -> None:
        self._total = sum(scenario.seconds() for scenario, _ in plan)
        self._before = 0.0
        self._live = sys.stderr.isatty()
        self._label = ""

    def begin(self, scenario: Scenario, peer: Peer) -> None:
        """Say what comes next."""
        self._label = f"{scenario.name} {peer.name}"
        if not self._live:
            print(f"{self._line(0)} starting", file=sys.stderr, flush=True)

    def second(self, number: int, figures: Summary) -> None:
        """Show a second's figures."""
        if self._live:
            text = (
                f"fresh {figures.fresh:4d} stored {figures.stored:4d} "
                f"trouble {figures.get_trouble:4d}"
            )
            print(f"\r{self._line(number)} {text}\033[K", end="", file=sys.stderr, flush=True)

    def end(self, scenario: Scenario) -> None:
        """Make room for the table."""
        self._before += scenario.seconds()
        if self._live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _line(self, number: int) -> str:
        share = min(1.0, (self._before + number) / self._total)
        done = round(share * BAR_WIDTH)
        bar = "#" * done + "-" * (BAR_WIDTH - done)
        return f"[{bar}] {100 * share:3.0f} % {self._label}"


def chosen(options: argparse.Namespace) -> list[tuple[Scenario, Peer]]:
    """Return what is to be run, scenario by scenario. Raises ValueError for a wrong name."""
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    peers = {peer.name: peer for peer in (*PEERS, *OTHERS)}
    wanted = _names(options.only, scenarios) or (QUICK if options.quick else tuple(scenarios))
    default = ("retter",) if options.quick else tuple(p.name for p in PEERS if p.installed())
    fronts = _names(options.peers, peers) or default
    return [
        (quick(scenarios[name]) if options.quick else scenarios[name], peers[front])
        for name in wanted
        for front in fronts
        if not unable(scenarios[name])
        if not (scenarios[name].needs_store and front in ("nothing", "haproxy"))
    ]


def unable(scenario: Scenario) -> str:
    """Return which program is missing here for the scenario; empty: it can be run."""
    match scenario.behind:
        case Behind.PHP:
            return fastcgi.missing()
        case Behind.BLOG:
            return blog.missing()
        case Behind.DEMO:
            return ""


def _names(text: str | None, known: dict[str, Scenario] | dict[str, Peer]) -> tuple[str, ...]:
    """Return what is meant: by a name one, by the beginning of names (wide, burst) several."""
    found: list[str] = []
    for word in filter(None, map(str.strip, (text or "").split(","))):
        meant = [word] if word in known else [n for n in known if n.startswith(word + "-")]
        if not meant:
            raise ValueError(f"{word!r} is none of {', '.join(known)}")
        found += meant
    return tuple(found)


def attempt(
    scenario: Scenario, peer: Peer, progress: Progress, *, seed: int, pages: int | None
) -> Trial:
    """Run one trial; what does not start becomes a row that says so."""
    progress.begin(scenario, peer)
    if scenario.crawlers:
        try:
            return run_crawl(scenario, peer, seed=seed)
        except (StartFailed, OSError) as error:
            return Trial(scenario, peer.name, {}, {}, [], error=f"failed: {error}")
        finally:
            progress.end(scenario)
    extra = {} if pages is None else {"pages": pages}
    try:
        return run_trial(scenario, peer, seed=seed, on_second=progress.second, **extra)
    except (StartFailed, LoadError, OSError) as error:
        return Trial(scenario, peer.name, {}, {}, [], error=f"failed: {error}")
    finally:
        progress.end(scenario)


def main(argv: Sequence[str]) -> int:
    """Run the benchmark. Returns 1 when RETTER missed a bar or did not run."""
    options = parser().parse_args(argv)
    if options.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:14} {scenario.about}")
        for peer in PEERS:
            there = "" if peer.installed() else "  (not installed)"
            print(f"{peer.name:14} {peer.about}{there}")
        return 0
    try:
        plan = chosen(options)
    except ValueError as error:
        print(f"overload: {error}", file=sys.stderr)
        return 2
    _tell_what_is_left_out(options)
    if not plan:
        return 0
    raise_file_limit()
    if cores()[0] is None:
        print("Not pinned: the proxy shares its core with the load.", file=sys.stderr)
    pin_this_process()
    trials = _run(plan, options)
    name = f"overload-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path = options.json or RESULTS / name
    write(path, about_this_run(), trials)
    print(f"All figures: {path}")
    return _verdict(trials)


def _tell_what_is_left_out(options: argparse.Namespace) -> None:
    wanted = _names(options.only, {scenario.name: scenario for scenario in SCENARIOS})
    for scenario in SCENARIOS:
        asked_for = scenario.name in wanted if wanted else not options.quick
        if asked_for and (program := unable(scenario)):
            print(f"{scenario.name} is skipped: {program} is not installed.", file=sys.stderr)


def _run(plan: Sequence[tuple[Scenario, Peer]], options: argparse.Namespace) -> list[Trial]:
    progress = Progress(plan)
    trials: list[Trial] = []
    row: list[Trial] = []
    for index, (scenario, peer) in enumerate(plan):
        pages = PAGES_QUICK if options.quick else None
        row.append(attempt(scenario, peer, progress, seed=options.seed, pages=pages))
        if index + 1 == len(plan) or plan[index + 1][0].name != scenario.name:
            print(block(scenario, row) + "\n", flush=True)
            trials += row
            row = []
    return trials


def _verdict(trials: Sequence[Trial]) -> int:
    ours = [trial for trial in trials if trial.peer == "retter"]
    missed = [
        f"{trial.scenario.name} ({trial.error.splitlines()[0] or ', '.join(trial.missed())})"
        if trial.error
        else f"{trial.scenario.name} ({', '.join(trial.missed())})"
        for trial in ours
        if trial.error or trial.missed()
    ]
    if missed:
        print(f"RETTER missed bars in {len(missed)} of {len(ours)}: {'; '.join(missed)}")
    elif ours:
        print(f"RETTER met every bar in all {len(ours)} scenarios.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
