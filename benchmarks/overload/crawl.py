"""Visitors beside a crawler, over real sockets: scenarios of `make overload`, and `make crawl`.

    python -m benchmarks.overload.crawl [--peer NAME ...] [--addresses N] [--times X]

The shop makes 40 pages a second, so that the load and the peers need little of the processors. What
a visitor gets is fresh if the shop made it after the visitor asked (X-Gen), so all peers are
measured alike.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.overload.applications import DemoShop
from benchmarks.overload.crawl_crowd import VISITORS_SHARE, Counts, Crowd, Plan, show_second
from benchmarks.overload.crawl_peers import PEERS, against_crawlers
from benchmarks.overload.crawl_picture import picture
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
from benchmarks.overload.scenarios import SCENARIOS, Scenario
from benchmarks.overload.trial import Figures, Trial
from retter.demo.load_report import percentile

FIGURES: Final = (
    ("visitors_fresh", "fresh", "%"),
    ("visitors_stored", "stored", "%"),
    ("visitors_errors", "errors", "%"),
    ("visitors_p99", "p99", "s"),
    ("never_answered", "new", "%"),
    ("crawler_share", "crawler", "%"),
)


def plan_of(scenario: Scenario, capacity: float, *, seed: int) -> Plan:
    """Return who comes, and how often."""
    return Plan(
        alone_s=scenario.calm_s,
        beside_s=scenario.stress_s,
        visitors_rate=VISITORS_SHARE * capacity,
        crawler_rate=scenario.rate * capacity,
        addresses=scenario.crawlers,
        seed=seed,
    )


def run_crawl(scenario: Scenario, peer: Peer, *, seed: int = 1, show: bool = False) -> Trial:
    """Start the shop and one peer, let the crowd come, and stop them. Raises StartFailed."""
    peer = against_crawlers(peer)
    with tempfile.TemporaryDirectory(prefix="overload-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # some peers give up their rights
        shop = DemoShop(scenario, folder, seed=seed)
        front: Process | None = None
        try:
            shop.start()
            listen = shop.port
            if not isinstance(peer, Nothing):
                listen = free_port()
                command = peer.command(listen, shop.port, folder, workers=scenario.connections)
                front = Process(command, core=cores()[0], log=folder / "peer.log")
                front.wait_for_port(listen)
            return _measured(scenario, peer, shop, listen, seed=seed, show=show)
        finally:
            if front is not None:
                front.stop()
            shop.stop()


def _measured(
    scenario: Scenario, peer: Peer, shop: DemoShop, port: int, *, seed: int, show: bool
) -> Trial:
    def on_second(second: int, counts: Counts) -> None:
        show_second(second, counts, crawled=second >= scenario.calm_s)

    crowd = Crowd(port, plan_of(scenario, shop.capacity, seed=seed))
    own, machine = family_cpu_s(os.getpid()), machine_cpu_s()
    asyncio.run(crowd.run(on_second if show else None))
    own, machine = family_cpu_s(os.getpid()) - own, machine_cpu_s() - machine
    figures = figures_of(scenario, crowd, shop.capacity)
    figures["others_cpu"] = (machine - own) / scenario.seconds()
    seconds = [
        {"fresh": one.fresh, "stored": one.stored, "trouble": one.errors, "posts": 0}
        for one in crowd.seconds
    ]
    return Trial(scenario, peer.name, figures, shop.stats(), seconds)


def figures_of(scenario: Scenario, crowd: Crowd, capacity: float) -> Figures:
    """Return what the visitors got beside the crawler, and what the crawler got; shares are 0..1.

    The crawler's share is that of the capacity. It is above what is left of it where the visitors
    do without, and where answers come after the load is over.
    """
    one, never, posts = crowd.beside, crowd.never_stored, crowd.posts
    return {
        "visitors_fresh": one.share(one.fresh),
        "visitors_stored": one.share(one.stored),
        "visitors_errors": one.share(one.errors),
        "visitors_p99": percentile(sorted(one.took_s), 0.99) if one.took_s else None,
        "never_answered": never.share(never.fresh),
        "never_p95": percentile(sorted(never.took_s), 0.95) if never.took_s else None,
        "crawler_share": crowd.crawler.fresh / (capacity * scenario.stress_s),
        "post_ok": posts.share(posts.fresh) if posts.all else 1.0,
        "generator_lag_p99": percentile(sorted(crowd.late_s), 0.99),
    }


# --- make crawl ---


def _row(trial: Trial) -> str:
    cells = [_cell(trial.figures.get(name), kind) for name, _, kind in FIGURES]
    return f"{trial.peer:22}" + "".join(f"{cell:>9}" for cell in cells)


def _cell(value: float | None, kind: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.0f} %" if kind == "%" else f"{value:.1f} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload.crawl")
    add = parser.add_argument
    add("--peer", action="append", choices=[peer.name for peer in PEERS], help="repeatable")
    add("--addresses", type=int, default=20, help="of the crawler (default 20)")
    add("--times", type=float, default=4.0, help="the capacity is what it asks for (default 4)")
    add("--seconds", type=float, default=15.0, help="for so long (default 15)")
    add("--seed", type=int, default=1, help="of who asks, and when (default 1)")
    add("--svg", type=Path, metavar="FILE", help="draw the first two runs")
    add("--show", action="store_true", help="print what visitors get, second by second")
    return parser


def main() -> int:
    """Run the chosen peers one after the other, and print a table of 80 columns."""
    options = _parser().parse_args()
    scenario = replace(
        next(one for one in SCENARIOS if one.crawlers),
        crawlers=options.addresses,
        rate=options.times,
        stress_s=options.seconds,
    )
    trials: list[Trial] = []
    for peer in PEERS:
        if peer.name not in (options.peer or [peer.name]) or not peer.installed():
            continue
        print(f"\n{peer.name}")
        print(textwrap.fill(peer.about, 78, initial_indent="  ", subsequent_indent="  "))
        if options.show:
            print("  visitors of each second: # fresh, - stored, ! error", flush=True)
        try:
            trials.append(run_crawl(scenario, peer, seed=options.seed, show=options.show))
        except StartFailed as error:
            print(f"  did not start: {error}")
    print(
        f"\nVisitors beside a crawler at {options.times:g} times the capacity, from "
        f"{options.addresses:,} addresses\n"
    )
    print(" " * 22 + "".join(f"{heading:>9}" for _, heading, _ in FIGURES))
    print("\n".join(map(_row, trials)))
    print(
        "\nnew: pages never stored before that were answered. crawler: its share of the\n"
        "shop's capacity; the visitors ask for 40 %."
    )
    if options.svg and trials:
        options.svg.write_text(picture(trials), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
