"""`python -m benchmarks.perf`: run, report, compare, profile."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.perf import machine, peers, profiling, results, runner, scenarios
from benchmarks.perf.compare import comparison
from benchmarks.perf.load import LoadFailed
from benchmarks.perf.report import table, write
from benchmarks.perf.results import Result

ROUNDS: Final = 5
NEEDED: Final = ("wrk", "nginx", "taskset")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.perf", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="measure")
    run.set_defaults(command=run_command)
    add = run.add_argument
    add("--rounds", type=int, default=ROUNDS, help=f"windows for each peer (default {ROUNDS})")
    add("--seconds", type=int, default=1, help="length of a window (default 1)")
    add("--only", metavar="NAMES", help="scenarios, separated by commas")
    add("--peers", metavar="NAMES", help="peers, separated by commas")
    add("--quick", action="store_true", help="the main scenarios only")
    add(
        "--smoke",
        action="store_true",
        help="one window of each kind; fails on errors, never on speed",
    )
    add(
        "--pypi-peers",
        action="store_true",
        help="also aiohttp, proxy.py and mitmproxy, which "
        "are installed in an environment of their own",
    )
    add(
        "--burners",
        type=int,
        default=0,
        metavar="N",
        help="processes beside it that only calculate: a busy machine (default 0)",
    )
    add("--no-syscalls", action="store_true", help="do not count system calls")
    add(
        "--json",
        metavar="FILE",
        type=Path,
        help="where the result goes (default: benchmarks/results/perf-TIME.json)",
    )
    add("--list", action="store_true", help="list scenarios and peers, and stop")

    report = commands.add_parser("report", help="write benchmarks/README.md and its plots")
    report.set_defaults(command=report_command)
    report.add_argument(
        "results",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="results, a later one over an earlier (default: the newest)",
    )

    compare = commands.add_parser("compare", help="two results: what changed, what is noise")
    compare.set_defaults(command=compare_command)
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)

    profile = commands.add_parser("profile", help="flame graphs and what requests leave allocated")
    profile.set_defaults(command=profile_command)
    profile.add_argument("--only", metavar="NAMES", help="scenarios (default: the main ones)")
    profile.add_argument("--seconds", type=int, default=5, help="of each load (default 5)")
    return top


def report_command(arguments: argparse.Namespace) -> int:
    """Write the README and the plots."""
    newest = results.latest()
    files: list[Path] = arguments.results or ([newest] if newest else [])
    if not files:
        print("no result: run first", file=sys.stderr)
        return 2
    try:
        result = results.merged([results.load(file) for file in files])
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    for path in write(result):
        print(path)
    return 0


def compare_command(arguments: argparse.Namespace) -> int:
    """Print how two results differ."""
    try:
        print(comparison(results.load(arguments.before), results.load(arguments.after)))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def profile_command(arguments: argparse.Namespace) -> int:
    """Write flame graphs, print what is left allocated."""
    cores = machine.cores()
    machine.raise_descriptor_limit()
    try:
        for scenario in scenarios.chosen(arguments.only, quick=True, smoke=False):
            print(profiling.flame_graph(scenario, arguments.seconds, cores))
            plain = profiling.allocations(scenario, arguments.seconds, cores, trace=False)
            traced = profiling.allocations(scenario, arguments.seconds, cores, trace=True)
            print(profiling.describe(scenario, plain, traced), flush=True)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except (LoadFailed, peers.StartFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run_command(arguments: argparse.Namespace) -> int:
    """Measure, print the tables, write the result."""
    if arguments.list:
        _list()
        return 0
    missing = [program for program in NEEDED if not peers.path_of(program)]
    if missing:
        print(f"needed and not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    try:
        chosen = scenarios.chosen(arguments.only, quick=arguments.quick, smoke=arguments.smoke)
        takers = choose_peers(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    plan = runner.Plan(
        rounds=1 if arguments.smoke else arguments.rounds,
        seconds=1 if arguments.smoke else arguments.seconds,
        system_calls=not (arguments.no_syscalls or arguments.smoke),
    )
    try:
        if arguments.pypi_peers:
            peers.install("uvloop", *(peer.module for peer in peers.PYPI_PEERS))
        peers.write_byte_code()
        with machine.burners(arguments.burners):
            result = runner.run(chosen, takers, plan, sys.argv[1:])
    except (LoadFailed, peers.StartFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for scenario in result.scenarios():
        print(table(result, scenario))
    path = arguments.json or results.FOLDER / time.strftime("perf-%Y%m%d-%H%M%S.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(results.dump(result))
    print(f"result: {path}", file=sys.stderr)
    return judge(result) if arguments.smoke else 0


def choose_peers(arguments: argparse.Namespace) -> list[peers.Peer]:
    """Return the peers that were asked for.

    Raises:
        ValueError: A name is unknown.
    """
    everybody = [*peers.PEERS, *(peers.PYPI_PEERS if arguments.pypi_peers else ())]
    known = {peer.name: peer for peer in everybody}
    names: Sequence[str] = peers.SMOKE if arguments.smoke else tuple(known)
    if arguments.peers:
        names = [name.strip() for name in arguments.peers.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no peer {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names]


def judge(result: Result) -> int:
    """Return 1 and say why when anything but speed went wrong."""
    wrong = [
        f"{series.scenario} {series.peer}: {window.trouble or 'no answers'}"
        for series in result.series
        for window in series.windows
        if window.errors or not window.requests
    ]
    wrong += [line for line in result.skipped if not line.endswith(("not installed", "an option"))]
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _list() -> None:
    print("scenarios:")
    for scenario in scenarios.SCENARIOS:
        print(f"  {scenario.name:<24} {scenario.about}")
    print("peers:")
    for peer in (*peers.PEERS, *peers.PYPI_PEERS):
        print(f"  {peer.name:<24} {peer.about}")


def main() -> int:
    """Run a command; return the exit code."""
    arguments = parser().parse_args()
    code: int = arguments.command(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
