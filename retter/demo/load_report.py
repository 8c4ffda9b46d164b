"""The results of a load: a sample for each request, and figures of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, isnan, nan
from typing import Any, Final, NamedTuple

from retter.demo.load_plan import LoadPlan

FRESH_WITHIN_S: Final = 3.0  # a later response is useless for a visitor
CLOCK_GRAIN_S: Final = 0.001  # X-Gen has milliseconds, rounded down


class Sample(NamedTuple):
    """One request: times are seconds, `at` is counted from the start of the load."""

    at: float
    latency: float  # from the intended start to the last byte, or to the error
    post: bool
    status: int  # 0: no response, see error
    source: str  # X-Retter: backend, cache, or empty when there is none
    made_after: float  # seconds from the intended start to X-Gen; negative: made before
    error: str  # timeout, refused, reset, malformed, ... or empty
    target: int  # index into LoadPlan.targets

    @property
    def answered(self) -> bool:
        """Whether a good response arrived."""
        return 200 <= self.status < 400

    @property
    def fresh(self) -> bool:
        """Whether the application made the response after the intended start, and in time.

        X-Gen is later than the intended start, and the response arrived within 3 s. This works
        with any proxy in between, so all are measured in the same way. Without X-Gen, X-Retter
        decides.
        """
        if not self.answered or self.latency > FRESH_WITHIN_S:
            return False
        if isnan(self.made_after):
            return self.source != "cache"
        return self.made_after >= -CLOCK_GRAIN_S

    @property
    def stored(self) -> bool:
        """Whether the response is good, and was made before the request."""
        if not self.answered or isnan(self.made_after):
            return self.answered and self.source == "cache"
        return self.made_after < -CLOCK_GRAIN_S


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that this share of the values does not exceed; nan if empty."""
    if not values:
        return nan
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a set of samples. Latencies in seconds, nan when there are none."""

    seconds: float
    gets: int
    posts: int
    fresh: int  # GETs
    stored: int  # GETs
    late: int  # GETs with a good response after more than 3 s
    shed: int  # GETs answered 503
    failed: int  # GETs answered 4xx or 5xx, except 503
    errors: dict[str, int]  # requests of all methods without a response
    get_errors: int  # GETs without a response
    posts_answered: int  # 2xx or 3xx
    posts_in_time: int  # of them within 3 s
    get_p50: float
    get_p99: float
    get_max: float
    post_p99: float
    stored_age_p50: float
    stored_age_max: float

    @property
    def goodput(self) -> float:
        """Useful responses per second: fresh GETs, and POSTs answered in time."""
        return (self.fresh + self.posts_in_time) / self.seconds if self.seconds else nan

    @property
    def get_trouble(self) -> int:
        """GETs that got no page: 4xx, 5xx, timeouts and broken connections."""
        return self.shed + self.failed + self.get_errors


def summarize(samples: Iterable[Sample], seconds: float) -> Summary:
    """Return the figures of these samples, which cover so many seconds."""
    every = list(samples)
    gets = [s for s in every if not s.post]
    posts = [s for s in every if s.post]
    good = [s for s in gets if s.answered]
    stored = [s for s in good if s.stored]
    fresh = [s for s in good if s.fresh]
    errors: dict[str, int] = {}
    for sample in every:
        if sample.error:
            errors[sample.error] = errors.get(sample.error, 0) + 1
    get_latencies = [s.latency for s in good]
    ages = [s.latency - s.made_after for s in stored if not isnan(s.made_after)]
    posts_good = [s for s in posts if s.answered]
    return Summary(
        seconds=seconds,
        gets=len(gets),
        posts=len(posts),
        fresh=len(fresh),
        stored=len(stored),
        late=len(good) - len(fresh) - len(stored),
        shed=sum(s.status == 503 for s in gets),
        failed=sum(s.status >= 400 and s.status != 503 for s in gets),
        errors=errors,
        get_errors=sum(bool(s.error) for s in gets),
        posts_answered=len(posts_good),
        posts_in_time=sum(s.latency <= FRESH_WITHIN_S for s in posts_good),
        get_p50=percentile(get_latencies, 0.5),
        get_p99=percentile(get_latencies, 0.99),
        get_max=max(get_latencies, default=nan),
        post_p99=percentile([s.latency for s in posts_good], 0.99),
        stored_age_p50=percentile(ages, 0.5),
        stored_age_max=max(ages, default=nan),
    )


@dataclass(slots=True)
class LoadReport:
    """The results of a plan."""

    plan: LoadPlan
    warmed: int  # targets with a good response beforehand
    samples: list[Sample] = field(default_factory=list[Sample])
    generator_lag_p99: float = nan  # seconds between the intended and the real sending

    def between(self, start: float, end: float, *, by_end: bool = False) -> list[Sample]:
        """Return the samples whose intended start (or end) lies in [start, end) seconds."""
        if by_end:
            return [s for s in self.samples if start <= s.at + s.latency < end]
        return [s for s in self.samples if start <= s.at < end]

    def summary(self, start: float = 0.0, end: float | None = None) -> Summary:
        """Return the figures of the requests meant to start in [start, end) seconds."""
        end = self.plan.seconds if end is None else end
        return summarize(self.between(start, end), end - start)

    def per_second(self) -> list[Summary]:
        """Return the figures of each second, by intended start."""
        seconds = ceil(self.plan.seconds)
        buckets: list[list[Sample]] = [[] for _ in range(seconds)]
        for sample in self.samples:
            buckets[min(int(sample.at), seconds - 1)].append(sample)
        return [summarize(bucket, 1.0) for bucket in buckets]


def as_json(report: LoadReport) -> dict[str, Any]:
    """Return the report in a form for `json.dumps`: figures, per second, without samples."""
    from dataclasses import asdict

    def figures(summary: Summary) -> dict[str, Any]:
        plain = asdict(summary) | {"goodput": summary.goodput}
        return {k: None if isinstance(v, float) and isnan(v) else v for k, v in plain.items()}

    return {
        "url": report.plan.url,
        "phases": [asdict(phase) for phase in report.plan.phases],
        "warmed": report.warmed,
        "generator_lag_p99": report.generator_lag_p99,
        "total": figures(report.summary()),
        "per_second": [figures(second) for second in report.per_second()],
    }
