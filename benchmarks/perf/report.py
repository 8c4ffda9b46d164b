"""Tables of figures, for the terminal and for the README."""

from benchmarks.perf.results import Result, Series
from benchmarks.perf.figures import ratio


def row(series: Series, base: Series | None) -> list[str]:
    f = series.figures()
    times = f"{ratio(f, base.figures(), lambda g: g.cpu_us):.2f}" if base else ""
    return [
        series.peer, f"{f.cpu_us:.1f}", times, f"{f.user_us:.1f}",
        f"{f.median_us:.1f} [{f.least_us:.1f}-{f.most_us:.1f}]", f"{f.requests_per_s:,.0f}",
        f"{f.p50_us:.0f}", f"{f.p99_us:.0f}", f"{f.p999_us:.0f}", f"{f.busy:.2f}",
        f"{series.rss_start_bytes / 1e6:.1f}", f"{series.rss_after_bytes / 1e6:.1f}",
        f"{sum(series.system_calls.values()):.1f}", str(f.errors),
    ]


def table(result: Result, scenario: str) -> str:
    base = result.base(scenario)
    rows = [["peer", "us", "x", "user", "median", "req/s", "p50", "p99", "p999", "busy", "rss", "rss", "sysc", "errors"]]
    rows += [row(s, base) for s in result.of(scenario)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return scenario + "\n" + "\n".join("  ".join(c.rjust(w) for c, w in zip(r, widths)) for r in rows) + "\n"
