"""The figures that RETTER has to reach, each as a ratio to a peer in the same run or as a limit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from benchmarks.perf.results import Result, Series

Measure = Callable[[Series], float]


class Verdict(Enum):
    """Whether a bar was reached."""

    MET = "met"
    MISSED = "**missed**"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One figure to reach."""

    about: str
    scenario: str
    measure: Measure
    against: str | None = None  # a peer; None: the limit is absolute
    of: str | None = None  # the peer's scenario, if it is another one
    limit: float
    compiled: float | None = None  # the limit with RETTER compiled, where that has its own
    unit: str = "x"

    def value(self, result: Result, peer: str = "retter") -> float | None:
        """Return what was reached, or None when it was not measured."""
        ours = result.find(self.scenario, peer)
        if ours is None:
            return None
        if self.against is None:
            return self.measure(ours) or None
        theirs = result.find(self.of or self.scenario, self.against)
        if theirs is None or not self.measure(theirs):
            return None
        return self.measure(ours) / self.measure(theirs)

    def verdict(self, result: Result) -> Verdict:
        """Judge a result of RETTER as its source is run."""
        return _judged(self.value(result), self.limit)

    def compiled_verdict(self, result: Result) -> Verdict:
        """Judge a result of RETTER compiled; by the same limit if it has none of its own."""
        limit = self.limit if self.compiled is None else self.compiled
        return _judged(self.value(result, "retter-compiled"), limit)


def _judged(value: float | None, limit: float) -> Verdict:
    if value is None:
        return Verdict.UNKNOWN
    return Verdict.MET if value <= limit else Verdict.MISSED


def _cpu(series: Series) -> float:
    return series.figures().cpu_us


def _p50(series: Series) -> float:
    return series.figures().p50_us


def _p99(series: Series) -> float:
    return series.figures().p99_us


def _start_mb(series: Series) -> float:
    return series.rss_start_bytes / 1e6


def _body(series: Series) -> float:
    return float(series.body_bytes)


def _idle_kb(series: Series) -> float:
    return series.idle_bytes / 1e3


BARS: Final[Sequence[Bar]] = (
    Bar(about="forwarding, heads repeat: CPU to nginx", scenario="forward-64", measure=_cpu,
        against="nginx", limit=1.2, compiled=1.0),
    Bar(about="forwarding, heads never seen before: CPU to nginx", scenario="forward-64-unseen",
        measure=_cpu, against="nginx", limit=2.1, compiled=1.5),
    Bar(about="forwarding, heads never seen before: CPU to nginx that stores too",
        scenario="forward-64-unseen", measure=_cpu, against="nginx-same-job", limit=0.85,
        compiled=0.65),
    Bar(about="forwarding, forty kinds of heads: CPU to nginx", scenario="forward-64-mix",
        measure=_cpu, against="nginx", limit=1.9, compiled=1.4),
    Bar(about="forwarding, forty kinds of heads: CPU to nginx that stores too",
        scenario="forward-64-mix", measure=_cpu, against="nginx-same-job", limit=0.8,
        compiled=0.6),
    Bar(about="forwarding, heads repeat, on a busy machine: CPU to nginx", scenario="forward-busy",
        measure=_cpu, against="nginx", limit=1.5, compiled=1.3),
    Bar(about="forwarding: CPU to the naive h11 proxy", scenario="forward-64", measure=_cpu,
        against="naive-h11", limit=1 / 6),
    Bar(about="store, heads repeat: CPU to nginx use_stale", scenario="store-64", measure=_cpu,
        against="nginx-stale", limit=0.55, compiled=0.48),
    Bar(about="store, heads repeat: CPU to HAProxy's cache", scenario="store-64", measure=_cpu,
        against="haproxy-cache", limit=1.15),
    Bar(about="store, heads never seen before: CPU to nginx use_stale",
        scenario="store-64-unseen", measure=_cpu, against="nginx-stale", limit=1.2, compiled=0.9),
    Bar(about="store, forty kinds of heads: CPU to nginx use_stale", scenario="store-64-mix",
        measure=_cpu, against="nginx-stale", limit=0.95, compiled=0.75),
    Bar(about="1 MiB bodies: CPU to nginx", scenario="forward-1m", measure=_cpu, against="nginx",
        limit=1.0),
    Bar(about="10 KiB POST: CPU to nginx", scenario="forward-post", measure=_cpu,
        against="nginx", limit=1.6),
    Bar(about="one connection: p50 to nginx", scenario="forward-1", measure=_p50,
        against="nginx", limit=1.25),
    Bar(about="64 connections: p99 to nginx", scenario="forward-64", measure=_p99,
        against="nginx", limit=2.0),
    Bar(about="forwarding, 16 KiB of HTML gzipped: CPU to nginx's gzip", scenario="forward-gzip",
        measure=_cpu, against="nginx-gzip", limit=1.3),
    Bar(about="the same: size to nginx's gzip", scenario="forward-gzip", measure=_body,
        against="nginx-gzip", limit=1.05),
    Bar(about="compression on, not asked for: CPU to compression off",
        scenario="forward-gzip-unasked", measure=_cpu, against="retter", of="forward-64",
        limit=1.05),
    Bar(about="compression on, another type: CPU to compression off",
        scenario="forward-gzip-unfit", measure=_cpu, against="retter", of="forward-64",
        limit=1.05),
    Bar(about="store, 16 KiB of HTML gzipped: CPU to the same page plain", scenario="store-gzip",
        measure=_cpu, against="retter", of="store-html", limit=1.1),
    Bar(about="a dashboard open, a scrape a second: CPU to no admin listener",
        scenario="forward-admin", measure=_cpu, against="retter-unwatched", limit=1.03),
    Bar(about="resident memory after the start", scenario="forward-64", measure=_start_mb,
        limit=32.0, unit="MB"),
    Bar(about="memory for each idle connection at 10,000", scenario="forward-idle-10k",
        measure=_idle_kb, limit=2.0, unit="KB"),
)  # fmt: skip
