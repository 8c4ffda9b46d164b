"""Tables for the terminal, and benchmarks/README.md with its plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.perf.bars import BARS, Bar
from benchmarks.perf.figures import ratio
from benchmarks.perf.plots import Group, Length, chart
from benchmarks.perf.results import Result, Series
from benchmarks.perf.scenarios import SCENARIOS

FOLDER: Final = Path(__file__).parent.parent
PLOTTED: Final = {
    "cpu-forward.svg": ("Forwarding: CPU microseconds a request, less is better",
                        ("forward-64", "forward-64-unseen", "forward-post", "forward-1m")),
    "cpu-store.svg": ("From the store: CPU microseconds a request, less is better",
                      ("store-64", "store-64-unseen")),
}  # fmt: skip

HEADINGS: Final = (
    "peer", "CPU us", "x nginx", "user us", "all windows", "req/s", "p50 us", "p99 us",
    "p99.9 us", "busy", "RSS start", "RSS after", "calls", "errors",
)  # fmt: skip


def row(series: Series, base: Series | None) -> list[str]:
    """Return a peer's figures as text, under HEADINGS."""
    own = series.figures()
    times = f"{ratio(own, base.figures(), lambda one: one.cpu_us):.2f}" if base else "-"
    calls = f"{sum(series.system_calls.values()):.1f}" if series.system_calls else "-"
    return [
        series.peer,
        f"{own.cpu_us:.1f}",
        times,
        f"{own.user_us:.1f}",
        f"{own.median_us:.1f} [{own.least_us:.1f}-{own.most_us:.1f}]",
        f"{own.requests_per_s:,.0f}",
        f"{own.p50_us:.0f}",
        f"{own.p99_us:.0f}",
        f"{own.p999_us:.0f}",
        f"{own.busy:.2f}",
        f"{series.rss_start_bytes / 1e6:.1f}",
        f"{series.rss_after_bytes / 1e6:.1f}",
        calls,
        str(own.errors),
    ]


def table(result: Result, scenario: str) -> str:
    """Return a scenario's figures for a terminal."""
    base = result.base(scenario)
    rows = [list(HEADINGS), *(row(series, base) for series in result.of(scenario))]
    return f"{scenario}: {about(scenario)}\n{columns(rows)}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows with their cells below each other, the first to the left, others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(one, widths, strict=True))
        ).rstrip()
        for one in rows
    )
    return "\n".join(lines) + "\n"


def about(scenario: str) -> str:
    """Return what a scenario does."""
    return next((one.about for one in SCENARIOS if one.name == scenario), "")


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is its head."""
    head, *rest = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(one)} |\n" for one in (head, rule, *rest))


def bars_table(result: Result) -> str:
    """Return the bars with what was reached."""
    rows = [["bar", "at most", "reached", "", "compiled: at most", "reached", ""]]
    rows += [_bar_row(bar, result) for bar in BARS]
    return markdown(rows)


def _bar_row(bar: Bar, result: Result) -> list[str]:
    def shown(value: float | None) -> str:
        return f"{value:.3g} {bar.unit}" if value is not None else ""

    return [
        bar.about,
        shown(bar.limit),
        shown(bar.value(result)),
        bar.verdict(result).value,
        shown(bar.limit if bar.compiled is None else bar.compiled),
        shown(bar.value(result, "retter-compiled")),
        bar.compiled_verdict(result).value,
    ]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def idle_table(result: Result) -> str:
    """Return what idle connections take, empty when that was not measured."""
    rows = [
        [series.peer, f"{series.idle_connections:,}", f"{series.idle_bytes / 1e3:.2f}"]
        for series in result.series
        if series.idle_connections
    ]
    return markdown([["peer", "idle connections", "KB for each"], *rows]) if rows else ""


def plots(result: Result) -> dict[str, str]:
    """Return the SVG files by name, without those that have nothing to show."""
    files: dict[str, str] = {}
    for name, (title, scenarios) in PLOTTED.items():
        if groups := [group for one in scenarios if (group := _group(result, one))]:
            files[name] = chart(title, groups)
    return files


def _group(result: Result, scenario: str) -> Group | None:
    base = result.base(scenario)
    if base is None:
        return None
    lengths = sorted(
        (
            Length(one.peer, cost := one.figures().cpu_us, f"{cost:.1f}")
            for one in result.of(scenario)
        ),
        key=lambda length: length.value,
    )
    title = f"{scenario}: {about(scenario)} (the line: {base.peer})"
    return Group(title, base.figures().cpu_us, lengths)


def lasting_section(page: str) -> str:
    """Return the section about the store on disk, from benchmarks/lasting.md; "" without it."""
    lines = page.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    measured = "\n".join(lines[2 : lines.index("", 3)]) if rows else ""
    return f"{_LASTING}{measured}\n\n{chr(10).join(rows)}" if rows else ""


def with_lasting(text: str, page: str) -> str:
    """Return benchmarks/README.md with this section about the store on disk."""
    end = text.index("## Figures\n")
    begin = text.find(LASTING_HEADING)
    before = text[: begin if begin >= 0 else end].rstrip("\n")
    section = lasting_section(page)
    return "\n\n".join([before, *([section] if section else []), text[end:]])


def readme(result: Result, files: Sequence[str], lasting: str = "") -> str:
    """Return benchmarks/README.md.

    Args:
        lasting: The text of benchmarks/lasting.md.
    """
    facts = [["", ""], *([name, text] for name, text in result.machine.items())]
    facts += [
        ["commit", result.commit],
        ["measured", result.began],
        ["flags", f"`{' '.join(result.flags)}`"],
        ["window", f"{result.seconds} s"],
    ]
    facts += [[name, text] for name, text in result.versions.items()]
    parts = [_INTRODUCTION, "## Bars\n", bars_table(result), _AFTER_BARS]
    parts += [f"![{name}]({name})\n" for name in files]
    parts.append("## Figures\n")
    parts.append(_COLUMNS)
    for scenario in result.scenarios():
        base = result.base(scenario)
        rows = [list(HEADINGS), *(row(series, base) for series in result.of(scenario))]
        parts += [f"### {scenario}\n", f"{_sentence(about(scenario))}\n", markdown(rows)]
    if idle := idle_table(result):
        parts += ["### Idle connections\n", idle]
    if result.skipped:
        parts += ["### Left out\n", "".join(f"- {line}\n" for line in result.skipped)]
    parts += ["## Machine and versions\n", markdown(facts), _HOW]
    return with_lasting("\n".join(parts), lasting)


def write(result: Result, folder: Path = FOLDER) -> list[Path]:
    """Write the README and the plots; return their paths."""
    files = plots(result)
    page = folder / LASTING_PAGE
    lasting = page.read_text() if page.exists() else ""
    written = {**files, "README.md": readme(result, list(files), lasting)}
    for name, text in written.items():
        (folder / name).write_text(text)
    return [folder / name for name in written]


_INTRODUCTION: Final = """\
# What a request costs

CPU microseconds a request of the proxy's processes, each proxy alone on one core, application and
load on another. Written by `make bench-report`; change `benchmarks/perf/report.py`, not this page.
`make overload` and `make simulate` measure what happens under overload, `make abuse` what
[abuse costs](abuse.md).
"""

_AFTER_BARS: Final = """\
RETTER runs as it comes, its breaker included. Forwarding is measured with `--circuit observe`:
64 clients that never pause saturate any application on one core, and the breaker would rightly
hold them back; so it decides and counts everything and forwards all the same. Answers from the
store are measured with `--circuit open` and the application stopped. CPU under overload and the
pause of a garbage collection are not among these figures.
"""

LASTING_PAGE: Final = "lasting.md"
LASTING_HEADING: Final = "## The store on disk\n"

_LASTING: Final = f"""\
{LASTING_HEADING}
Measured apart from the rest by `make lasting ARGS=--write`, which writes this section and
[a page of its own]({LASTING_PAGE}).
"""

_COLUMNS: Final = """\
*CPU us* and the columns right of it are *clean*: the median of the fastest quarter of the windows.
*all windows* is the median of the CPU cost of all, with its range. *x nginx* is the ratio to nginx
in the same scenario and run: to its plain proxy for forwarding, to `use_stale` for the store.
*busy* is the share of its core that the proxy used, RSS is in MB (of all processes of a peer
together; RETTER as it is when installed, with its byte code on disk), *calls* are system calls a
request. Look at ratios: the machine changes its speed.
"""

_HOW: Final = """\
## How to measure

    make bench                    all scenarios, about 30 minutes; ARGS="--quick" the main ones
    make bench-smoke              one window each: fails on errors, never on speed
    make bench-report             this page, from the newest result (or RESULT=FILE)
    make bench-compare A=1.json B=2.json
    make profile                  flame graphs and what is left allocated, ARGS="--only store-64"

It needs nginx and wrk; HAProxy, Varnish and Caddy are measured where they are installed, and
`ARGS=--pypi-peers` installs aiohttp, proxy.py and mitmproxy into `benchmarks/results/venv`.
`python -m benchmarks.perf run --help` tells the options, `--list` the scenarios and peers.

* A shared machine flips between speeds within seconds. So windows are short, all peers have their
  turn in each round, a fixed loop is timed on the proxy's core before each window
  (`calibration_ms` in the JSON), and the clean figures come from the fastest quarter.
* Nothing else should run. Two cores are enough: the last one is the proxy's.
* CPU time is utime + stime of /proc, in ticks of 10 ms: one in a hundred of a window.
* Heads are those of a browser, about 700 bytes with a session cookie. *Never seen before* means
  another path, query, session, cookie and Referer in each request. From the store only cookie,
  Referer and a detail of User-Agent differ: another path or session would be another page. *By
  connection* has a thread of wrk for each connection, which costs all peers more.
* System calls are counted by strace in a window of its own.
* The floors: `floor-relay` passes bytes to a pooled connection and back without a look at them,
  `floor-constant` sends the same bytes for whatever arrives, `naive-h11` parses and writes each
  message with h11 on both sides.
* `compare` divides nginx's cost out where both runs have it, and draws the rounds again 400 times:
  a change is noise when 1 lies within 90 % of these draws, or when it is below 2 %.
  It takes five windows on both sides.
"""
