"""`retter load URL`: overload your own server and see what its visitors would notice."""

import argparse
import asyncio
import json
import sys
import time
from math import isnan
from pathlib import Path
from typing import Any, Final

from retter.demo.load_generator import resolve, run_load
from retter.demo.load_plan import RATE_MAX, LoadError, LoadPlan, Phase
from retter.demo.load_report import LoadReport, Summary, as_json
from retter.demo.terminal import Parser, number, raise_file_limit, run, say, whole

__all__ = ["LoadError", "LoadPlan", "LoadReport", "Phase", "main", "run_load"]

SECONDS_MAX: Final = 86_400.0  # a day
STATS_TRIES: Final = 5  # right after an overload, the first requests for figures may be refused
STATS_WAIT_S: Final = 1.0
STATS_BYTES_MAX: Final = 64 * 1024


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = Parser(
        prog="retter load",
        allow_abbrev=False,
        description="Send requests at a constant rate, whether or not responses arrive (open "
        "loop), and report the results. Latency counts from the time when a request was due. "
        "For the demonstration shop, alone or behind RETTER; loopback addresses only.",
    )
    add = options.add_argument
    add("url", metavar="URL", help="http://127.0.0.1:8089")
    add(
        "--rate",
        type=number(0.001, RATE_MAX),
        default=2000.0,
        help="requests per second (default 2000)",
    )
    add("--seconds", type=number(0.001, SECONDS_MAX), default=10.0, help="duration (default 10)")
    add("--urls", type=whole(1, 100_000), default=500, help="different pages (default 500)")
    add(
        "--path",
        default="/product/{n}",
        help="path of the GETs; {n} counts up (default /product/{n})",
    )
    add("--post-share", type=number(0, 1), default=0.1, help="share of POSTs (default 0.1)")
    add("--post-path", default="/cart/add", help="path of the POSTs (default /cart/add)")
    add("--post-body", default="product=7", help="form in the POSTs (default product=7)")
    add(
        "--timeout",
        type=number(0.001, 120),
        default=2.0,
        help="seconds until a client leaves (default 2)",
    )
    add(
        "--connections",
        type=whole(1, 60_000),
        default=8000,
        help="most open connections (default 8000)",
    )
    add("--even", action="store_true", help="even gaps instead of random (Poisson) ones")
    add("--seed", type=int, default=1, help="seed of the random gaps and choices (default 1)")
    add("--no-warm", action="store_true", help="do not fetch each page once beforehand")
    add("--json", metavar="FILE", help="write all figures to FILE, second by second")
    add(
        "--this-server-is-mine",
        action="store_true",
        help="allow another machine than this one; only one that you run and may overload",
    )
    return options


def plan_of(options: argparse.Namespace) -> LoadPlan:
    """Return the plan that the options ask for. Raises ValueError."""
    targets = tuple(options.path.replace("{n}", str(n)) for n in range(1, options.urls + 1))
    if not all(target.startswith("/") and target.isprintable() for target in targets):
        raise ValueError(f"--path: {options.path!r} is not a path, which begins with /")
    return LoadPlan(
        url=options.url,
        phases=(Phase(options.seconds, options.rate),),
        targets=targets,
        warm=() if options.no_warm else None,
        post_share=options.post_share,
        post_target=options.post_path,
        post_body=options.post_body,
        timeout_s=options.timeout,
        connections_max=options.connections,
        poisson=not options.even,
        seed=options.seed,
        any_host=options.this_server_is_mine,
    )


def main(argv: list[str]) -> int:
    """Run `retter load` with these arguments and return the exit code."""
    try:
        options = parser().parse_args(argv)
    except ValueError as error:
        sys.stderr.write(f"retter load: {error}\n")
        return 2
    raise_file_limit()
    try:
        content: dict[str, Any] = {}
        if options.json is not None:
            Path(options.json).touch()  # before a minute of load, not after it
        run(lambda: _load(plan_of(options), content))
        if options.json is not None:
            Path(options.json).write_text(json.dumps(content, indent=1) + "\n")
        return 0
    except OSError as error:
        sys.stderr.write(f"retter load: {options.json}: {error.strerror}\n")
        return 1
    except (LoadError, ValueError) as error:
        sys.stderr.write(f"retter load: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\nretter load: stopped\n")
        return 130


async def _load(plan: LoadPlan, content: dict[str, Any]) -> int:
    await resolve(plan)  # before anything is said or done
    warm = len(plan.targets if plan.warm is None else plan.warm)
    if warm:
        say(f"Fetching {warm} pages once, gently ...")
    before = await demo_stats(plan.url, tries=1)
    report = await run_load(plan, on_second=tell, on_start=lambda: say(_begin(plan)))
    say("")
    if report.warmed < warm:
        say(f"Only {report.warmed} of {warm} pages were answered beforehand.")
    after = await demo_stats(plan.url) if before is not None else None
    say(table(report, before, after))
    content |= as_json(report) | {"application_before": before, "application_after": after}
    return 0


def _begin(plan: LoadPlan) -> str:
    rate = max(phase.rate for phase in plan.phases)
    return (
        f"{rate:.0f} requests a second for {plan.seconds:g} s, {plan.post_share:.0%} POST, "
        f"{len(plan.targets)} pages"
    )


HEAD_EVERY: Final = 20  # lines of seconds: a head is always in sight
_HEAD: Final = (
    "           ------ pages (GETs) ------   all    answered in\n"
    "  time     fresh  stored    503  error  lost   typical  slowest 1 %"
)


def tell(second: int, figures: Summary) -> None:
    """Print one second's figures as a line, with a head above the first and now and then."""
    if second % HEAD_EVERY == 1:
        say(_HEAD)
    lost = sum(figures.errors.values())
    say(
        f"{second:4d} s  {figures.fresh:7,d} {figures.stored:7,d} {figures.shed:6,d} "
        f"{figures.failed:6,d} {lost:5,d}   {_ms(figures.get_p50):>7}  {_ms(figures.get_p99):>11}"
    )


Line = tuple[str, str, str]  # what, how many, which share


def table(
    report: LoadReport, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None
) -> str:
    """Return the figures as lines for a terminal, with those of the application if given."""
    total = report.summary()
    rows = _page_rows(total) + _form_rows(total)
    rows += [
        (f"  {_LOST.get(kind, kind)}", f"{n:,}", "") for kind, n in sorted(total.errors.items())
    ]
    if report.generator_lag_p99 > 0.05:
        rows.append(("This program was late by", _ms(report.generator_lag_p99), "take care"))
    if before is not None and after is not None:
        rows += _application_rows(before, after)
    names = max(len(name) for name, _, _ in rows)
    width = max(len(figure) for _, figure, _ in rows)
    lines = [f"{name:{names}}  {figure:>{width}}  {share}".rstrip() for name, figure, share in rows]
    return "\n".join(lines)


# What became of requests without an answer.
_LOST: Final = {
    "timeout": "lost: no answer in time",
    "refused": "lost: connection refused",
    "reset": "lost: connection broken",
    "cut": "lost: answer cut short",
    "malformed": "lost: answer malformed",
}


def _page_rows(total: Summary) -> list[Line]:
    gets = max(total.gets, 1)
    good = total.fresh + total.stored + total.late
    rows = [
        ("Pages asked for (GETs)", f"{total.gets:,}", ""),
        ("  got the page", f"{good:,}", _share(good, gets)),
        ("    fresh, from the application", f"{total.fresh:,}", _share(total.fresh, gets)),
        ("    stored, from RETTER", f"{total.stored:,}", _share(total.stored, gets)),
    ]
    if total.stored and not isnan(total.stored_age_max):  # only the demonstration says how old
        ages = f"{total.stored_age_p50:.1f} s, {total.stored_age_max:.1f} s"
        rows.append(("      their age: typical, oldest", ages, ""))
    if total.late:
        rows.append(("    after more than 3 s", f"{total.late:,}", _share(total.late, gets)))
    latencies = f"{_ms(total.get_p50)}, {_ms(total.get_p99)}, {_ms(total.get_max)}"
    return [
        *rows,
        ("  told to come again (503)", f"{total.shed:,}", _share(total.shed, gets)),
        ("  got another error (4xx, 5xx)", f"{total.failed:,}", _share(total.failed, gets)),
        ("  got no answer", f"{total.get_errors:,}", _share(total.get_errors, gets)),
        ("  time: typical, slowest 1 %, longest", latencies, ""),
    ]


def _form_rows(total: Summary) -> list[Line]:
    return [
        ("Forms sent (POSTs)", f"{total.posts:,}", ""),
        ("  answered", f"{total.posts_answered:,}", _share(total.posts_answered, total.posts)),
        ("  time of the slowest 1 %", _ms(total.post_p99), ""),
    ]


def _application_rows(before: dict[str, Any], after: dict[str, Any]) -> list[Line]:
    def grown(name: str) -> int:
        return int(after.get(name, 0)) - int(before.get(name, 0))

    return [
        ("The application", "", ""),
        ("  got GETs", f"{grown('gets'):,}", ""),
        ("  got POSTs", f"{grown('posts'):,}", ""),
        ("  answered", f"{grown('answered'):,}", ""),
        ("    when nobody waited any more", f"{grown('answered_gone'):,}", ""),
        ("  still has waiting", f"{after.get('waiting', 0):,}", ""),
        ("  had waiting at most", f"{after.get('longest_queue', 0):,}", ""),
    ]


async def demo_stats(url: str, *, tries: int = STATS_TRIES) -> dict[str, Any] | None:
    """Return the /stats.json of the demonstration application at or behind URL, else None.

    The query is different each time, so that a proxy in between cannot answer from its store.
    """
    for attempt in range(tries):
        if attempt:
            await asyncio.sleep(STATS_WAIT_S)
        stats = await asyncio.to_thread(_fetch_stats, url)
        if stats is not None:
            return stats
    return None


def _fetch_stats(url: str) -> dict[str, Any] | None:
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    if not url.startswith("http://"):
        return None
    opener = build_opener(ProxyHandler({}))  # never through a web proxy of the environment
    address = f"{url.rstrip('/')}/stats.json?at={time.time_ns()}"
    try:
        with opener.open(address, timeout=5) as answer:
            stats: Any = json.loads(answer.read(STATS_BYTES_MAX))
    except HTTPError as error:
        error.close()  # it holds the connection
        return None
    except (OSError, ValueError):
        return None
    ours = isinstance(stats, dict) and stats.get("application") == "retter demo"  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    return stats if ours else None  # pyright: ignore[reportUnknownVariableType]


def _ms(seconds: float) -> str:
    if isnan(seconds):
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if of else ""
