"""`make eviction`: print what stays in a full store; exit 1 when a bar is missed.

    python -m benchmarks.eviction [--seeds 4] [--only crawl,loop] [--write]

It takes a minute or two, and does not depend on how busy the machine is.
"""

import argparse
import sys

from benchmarks.eviction.caches import LeastRecentlyUsed, Store, best, play
from benchmarks.eviction.report import FILE, Row, missed, page, table, worst
from benchmarks.eviction.traces import SCENARIOS, Scenario


def measure(scenario: Scenario, seeds: int) -> Row:
    """Play a scenario with so many seeds; return the worst of them."""
    rows: list[Row] = []
    held = scenario.pages_held
    for seed in range(seeds):
        trace = list(scenario.make(seed, held))
        store = play(trace, Store(held))
        lru = play(trace, LeastRecentlyUsed(held))
        rows.append(Row(scenario, store, lru, best(trace, held)))
    return worst(scenario, rows)


def main(arguments: list[str]) -> int:
    """Measure, print, and write the page if that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eviction", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="runs of a trace; the worst counts")
    parser.add_argument("--only", default="", help="traces, comma-separated")
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    options = parser.parse_args(arguments)
    wanted = set(filter(None, options.only.split(",")))
    if unknown := wanted - {scenario.name for scenario in SCENARIOS}:
        parser.error(f"no such trace: {', '.join(sorted(unknown))}")
    rows = [measure(one, options.seeds) for one in SCENARIOS if not wanted or one.name in wanted]
    sys.stdout.write(table(rows))
    if options.write:
        FILE.write_text(page(rows, options.seeds))
    for name in missed(rows):
        sys.stdout.write(f"{name} misses its bar\n")
    return 1 if missed(rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
