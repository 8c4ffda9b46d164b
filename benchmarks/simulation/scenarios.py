"""The situations in which overload control has to prove itself, each with its bars."""

from dataclasses import dataclass
from math import inf

from benchmarks.simulation import measure as m
from benchmarks.simulation.application import (
    Fault,
    Model,
    bimodal,
    constant,
    exponential,
    lognormal,
    mixed,
)
from benchmarks.simulation.load import POST_ROUTES, ROUTES, Load, Nuisance

WARM_S = 20.0  # at half of the capacity, before anything happens
AFTER_S = 15.0  # at half of the capacity, to see the recovery
SLOW_ROUTE = ROUTES[1]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One figure and what it has to reach."""

    label: str
    measure: m.Measure
    at_most: float | None = None
    at_least: float | None = None

    def misses(self, value: float, tolerance: float = 0.0) -> bool:
        """Say whether the value misses the bar by more than that share of it."""
        if self.at_most is not None:
            return value > self.at_most * (1 + tolerance) + 1e-9
        assert self.at_least is not None
        return value < self.at_least * (1 - tolerance) - 1e-9

    def worse(self, one: float, other: float) -> float:
        """Return the worse of two values."""
        return max(one, other) if self.at_most is not None else min(one, other)

    @property
    def text(self) -> str:
        """The bar as the table shows it."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return f">= {self.at_least:g}"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A situation: an application, a load, and what is measured."""

    name: str
    about: str
    model: Model
    load: Load
    bars: tuple[Bar, ...]
    quick: bool = False


def most(label: str, measure: m.Measure, bar: float) -> Bar:
    """Make a bar that is the most."""
    return Bar(label=label, measure=measure, at_most=bar)


def least(label: str, measure: m.Measure, bar: float) -> Bar:
    """Make a bar that is the least."""
    return Bar(label=label, measure=measure, at_least=bar)


def _step(model: Model, times: float, load_s: float, post_share: float = 0.1) -> Load:
    rate = model.capacity
    return Load(
        phases=(
            (WARM_S, 0.5 * rate),
            (WARM_S + load_s, times * rate),
            (WARM_S + load_s + AFTER_S, 0.5 * rate),
        ),
        post_share=post_share,
    )


def _overload(
    name: str,
    model: Model,
    times: float,
    *,
    good: float = 90,
    idle: float = 5,
    p99: float = 0.5,
    longest: float = 1.0,
    post_p99: float = 0.6,
    first: float = 0.25,
    post_share: float = 0.1,
    peak: float | None = 6,
    p50: float | None = 0.005,
    quick: bool = False,
) -> Scenario:
    begin, end = WARM_S, WARM_S + 30
    bars = [
        least("fresh goodput, % of capacity", m.goodput(begin, end), good),
        most("GET p99, s", m.latency(begin, end, 0.99), p99),
        most("GET longest, s", m.latency(begin, end, 1), longest),
        most("GET errors", m.get_errors(0, end + AFTER_S), 0),
        least("POST ok, %", m.post_ok(begin, end), 100),
        most("POST p99, s", m.latency(begin, end, 0.99, is_get=False), post_p99),
        most("first stored answer, s", m.first_stored_after(begin), first),
        most("fresh again after, s", m.fresh_after(end), 3),
        most("leaked", m.leaked, 0),
    ]
    if p50 is not None:
        bars.insert(1, most("GET p50, s", m.latency(begin, end, 0.5), p50))
    bars.insert(1, most("workers idle, %", m.workers_idle(begin + 1, end), idle))
    if peak is not None:
        bars.append(most("peak in flight, x workers", m.peak_in_flight(begin, end), peak))
    return Scenario(
        name=name,
        about=f"{times:g} times the capacity for 30 s",
        model=model,
        load=_step(model, times, 30, post_share),
        bars=tuple(bars),
        quick=quick,
    )


def _steady(
    name: str, model: Model, times: float, stale: float, good: float | None, duration_s: float = 60
) -> Scenario:
    begin, end = WARM_S, WARM_S + duration_s
    bars = [
        most("stored answers, %", m.stale_share(begin, end), stale),
        most("GET errors", m.get_errors(0, end), 0),
        least("POST ok, %", m.post_ok(begin, end), 100),
    ]
    if good is not None:
        bars.insert(0, most("workers idle, %", m.workers_idle(begin + 1, end), 12))
        bars.insert(0, least("fresh goodput, % of capacity", m.goodput(begin, end), good))
    return Scenario(
        name=name,
        about=f"{times:g} times the capacity for {duration_s:g} s",
        model=model,
        load=Load(phases=((WARM_S, 0.5 * model.capacity), (end, times * model.capacity))),
        bars=tuple(bars),
    )


_PLAIN = Model()
# A fifth of the requests is for a route that takes 800 ms, the rest take 5 ms.
_BIMODAL = Model(
    service=bimodal(frozenset({ROUTES[-1], POST_ROUTES[-1]}), 0.005, 0.8),
    mean_s=0.8 * 0.005 + 0.2 * 0.8,
)
_MIXED = Model(service=mixed(0.005, 0.8, 0.2), mean_s=_BIMODAL.mean_s)
_HEAVY = Model(service=lognormal(0.05), mean_s=0.05)


def _workers(workers: int, mean_s: float = 0.05) -> Model:
    return Model(workers=workers, service=exponential(mean_s), mean_s=mean_s)


def _trouble(
    name: str,
    about: str,
    fault: Fault,
    bars: tuple[Bar, ...],
    *,
    rate: float = 80.0,
    quick: bool = False,
    mixes: tuple[tuple[float, tuple[float, ...]], ...] = ((0.0, (1, 1, 1, 1, 1)),),
) -> Scenario:
    return Scenario(
        name=name,
        about=about,
        model=Model(faults=(fault,)),
        load=Load(phases=((fault.end + AFTER_S, rate),), mixes=mixes),
        bars=bars,
        quick=quick,
    )


def _hang(name: str, rate: float, longest: float, first: float) -> Scenario:
    begin, end = 30.0, 50.0
    return _trouble(
        name,
        f"no answer for 20 s, at {rate:g} requests a second",
        Fault(kind="hang", begin=begin, end=end),
        (
            most("GET longest, s", m.latency(0, end + AFTER_S, 1), longest),
            most("GET errors", m.get_errors(0, end + AFTER_S), 0),
            most("first stored answer, s", m.first_stored_after(begin), first),
            most("fresh again after, s", m.fresh_after(end), 4),
            most("leaked", m.leaked, 0),
        ),
        rate=rate,
        quick=True,
    )


def _collapse() -> Scenario:
    model = Model(collapses=True)
    begin, end = WARM_S, WARM_S + 30
    return Scenario(
        name="collapse",
        about="work in it slows all work down: 3x for 30 s, then 0.7x",
        model=model,
        load=Load(
            phases=(
                (begin, 0.5 * model.capacity),
                (end, 3 * model.capacity),
                (end + 30, 0.7 * model.capacity),
            )
        ),
        bars=(
            least("fresh goodput, % of capacity", m.goodput(begin, end), 80),
            most("fresh again after, s", m.fresh_after(end), 5),
            most("GET errors", m.get_errors(0, end + 30), 0),
        ),
        quick=True,
    )


def _bounded() -> Scenario:
    model = Model(backlog=8)
    begin, end = WARM_S, WARM_S + 30
    return Scenario(
        name="bounded backlog",
        about="503 when 8 wait for the 8 workers: 5x for 30 s",
        model=model,
        load=_step(model, 5, 30),
        bars=(
            least("POST ok, %", m.post_ok(begin, end), 97),
            most("GET errors", m.get_errors(0, end + AFTER_S), 0),
            least("fresh goodput, % of capacity", m.goodput(begin, end), 80),
            most("GET p99, s", m.latency(begin, end, 0.99), 0.5),
        ),
        quick=True,
    )


def _restart(name: str, *, stored: bool) -> Scenario:
    begin, restart = WARM_S, WARM_S + 15
    bars = [
        least("fresh goodput, % of capacity", m.goodput(restart, restart + 30), 80),
        most("GET longest, s", m.latency(restart, restart + 30, 1), 2)
        if stored
        else most("GET p99.9, s", m.latency(restart, restart + 30, 0.999), 2.3),
        most("POST p99, s", m.latency(restart, restart + 30, 0.99, is_get=False), 0.6),
    ]
    return Scenario(
        name=name,
        about="the controller starts anew inside 5x" + ("" if stored else ", with an empty store"),
        model=_PLAIN,
        load=Load(
            phases=((begin, 0.5 * 160), (restart + 30, 5 * 160)),
            restart_at=restart,
            stored_after_restart=stored,
        ),
        bars=tuple(bars),
    )


def _restart_with_store() -> Scenario:
    """With a store on disk: what was learnt was written ten seconds before the kill."""
    begin, restart, end = WARM_S, WARM_S + 15, WARM_S + 45
    return Scenario(
        name="restart, learnt kept",
        about="killed inside 5x; what was stored and learnt comes back from disk",
        model=_PLAIN,
        load=Load(
            phases=((begin, 0.5 * 160), (end, 5 * 160)),
            restart_at=restart,
            learnt_before_restart_s=10.0,
        ),
        bars=(
            least(
                "fresh goodput of the first 5 s, % of capacity", m.goodput(restart, restart + 5), 90
            ),
            least("fresh goodput, % of capacity", m.goodput(restart, end), 90),
            most("GET errors", m.get_errors(restart, end), 0),
            most("GET longest, s", m.latency(restart, end, 1), 1),
            most("POST p99, s", m.latency(restart, end, 0.99, is_get=False), 0.5),
        ),
        quick=True,
    )


def _cold_start(name: str, model: Model, good: float, longest: float) -> Scenario:
    return Scenario(
        name=name,
        about="the first request of all arrives at 5x; nothing is stored",
        model=model,
        load=Load(phases=((30, 5 * model.capacity),), cold_store=True),
        bars=(
            least("fresh goodput, % of capacity", m.goodput(0, 30), good),
            most("without stored: longest, s", m.without_stored_longest(0, 30), longest),
            least("POST ok, %", m.post_ok(0, 30), 100),
        ),
    )


def _slower(name: str, workers: int, good: float) -> Scenario:
    begin = WARM_S + 10
    fault = Fault(kind="shift", begin=begin, end=200, amount=4.0)
    model = Model(workers=workers, faults=(fault,))
    return Scenario(
        name=name,
        about="inside 5x all work takes four times as long; in % of the new capacity",
        model=model,
        load=Load(
            phases=((WARM_S, 0.5 * model.capacity), (begin + 60, 5 * model.capacity)),
            post_share=0.002,
        ),
        bars=(
            least("fresh goodput, first 60 s", m.goodput(begin, begin + 60, 0.25), good),
            most("GET longest, s", m.latency(begin, begin + 60, 1), 5),
        ),
    )


def _quicker() -> Scenario:
    end = WARM_S + 10
    fault = Fault(kind="shift", begin=0, end=end, amount=4.0)
    return Scenario(
        name="baseline shift, quicker",
        about="learnt while slow, then inside 5x all work takes a quarter",
        model=Model(faults=(fault,)),
        load=Load(phases=((WARM_S, 20), (end + 60, 800)), post_share=0.02),
        bars=(
            least("fresh goodput", m.goodput(end, end + 60), 80),
            most("GET p99 after 30 s", m.latency(end + 30, end + 60, 0.99), 0.5),
            most("usual peak in flight", m.usual_peak(end + 30, end + 60), 48),
        ),
    )


def _mix_shift() -> Scenario:
    begin, end = WARM_S + 10, WARM_S + 40
    capacity = 8 / (0.9 * 0.8 + 0.1 * 0.005)
    return Scenario(
        name="mix shift",
        about="inside 5x nine tenths suddenly want the slow route",
        model=_BIMODAL,
        load=Load(
            phases=((WARM_S, 0.5 * 48.8), (end, 5 * 48.8)),
            mixes=((0, (1, 1, 1, 1, 1)), (begin, (1, 1, 1, 1, 36))),
            post_share=0.02,
        ),
        bars=(
            least(
                "fresh goodput, % of capacity",
                m.goodput(begin, end, capacity / _BIMODAL.capacity),
                80,
            ),
            most("workers idle, %", m.workers_idle(begin, end), 12),
            most("GET longest, s", m.latency(begin, end, 1), 5),
        ),
    )


def _hot_key() -> Scenario:
    begin, end = WARM_S, WARM_S + 30
    return Scenario(
        name="hot page",
        about="half of the GETs are for one page: 5x for 30 s",
        model=_PLAIN,
        load=Load(phases=((begin, 80), (end, 800)), hot_key_share=0.5),
        bars=(
            least("fresh goodput, % of capacity", m.goodput(begin, end), 90),
            most("age of stored answers, p99", m.refreshed(begin + 10, end), 36),
        ),
    )


def _brown_out() -> Scenario:
    fault = Fault(kind="shift", begin=30, end=60, amount=32.0)
    return Scenario(
        name="brown-out at 10 rps",
        about="all work takes 1.6 s for 30 s: half of what is asked can be done",
        model=Model(faults=(fault,)),
        load=Load(phases=((80, 10),)),
        bars=(
            most("GET longest, s", m.latency(30, 60, 1), 5),
            most("GET p99, s", m.latency(30, 60, 0.99), 3),
            most("GET p80, s", m.latency(30, 60, 0.8), 1),
            most("fresh again after, s", m.fresh_after(60), 5),
        ),
    )


def _slow_posts() -> Scenario:
    fault = Fault(kind="slow", begin=30, end=90, route=POST_ROUTES[1], amount=14.0)
    return Scenario(
        name="slow POSTs",
        about="2 POSTs a second take 14 s each on 40 workers; 12 workers are left",
        model=Model(workers=40, faults=(fault,)),
        load=Load(phases=((105, 100),)),
        bars=(
            # Sometimes the POSTs take all workers for seconds, and then no GET can be fresh.
            least("GETs fresh, % of possible", m.fresh_of_possible(30, 90), 90),
            most("GET errors", m.get_errors(0, 105), 0),
            least("POST ok, %", m.post_ok(0, 90), 97),
        ),
    )


def _coverage() -> Scenario:
    begin, end = WARM_S, WARM_S + 30
    return Scenario(
        name="coverage 80 %",
        about="a fifth of the GETs has no stored response: 5x for 30 s",
        model=_PLAIN,
        load=Load(phases=((begin, 80), (end, 800), (end + AFTER_S, 80)), coverage=0.8),
        bars=(
            most("POST p99, s", m.latency(begin, end, 0.99, is_get=False), 0.6),
            least("POST ok, %", m.post_ok(begin, end), 100),
            most("without stored: longest, s", m.without_stored_longest(begin, end), 2.3),
            least("without stored: fresh, %", m.answered_fresh(begin, end), 40),
            most("errors that are not our 503", m.bad_errors(begin, end), 0),
            least("fresh goodput, % of capacity", m.goodput(begin, end), 90),
        ),
    )


def _soak() -> Scenario:
    begin, end = WARM_S, WARM_S + 600
    middle = (begin + end) / 2
    return Scenario(
        name="10 min at 5x",
        about="does anything drift: the second half in % of the first",
        model=_PLAIN,
        load=Load(phases=((begin, 80), (end, 800))),
        bars=(
            least(
                "goodput, % of the first half",
                m.ratio(m.goodput(middle, end), m.goodput(begin, middle)),
                90,
            ),
            most(
                "peak, % of the first half",
                m.ratio(m.usual_peak(middle, end), m.usual_peak(begin + 1, middle)),
                110,
            ),
            least("fresh goodput, % of capacity", m.goodput(begin, end), 90),
        ),
    )


# --- healthy applications that must not be limited, and pools that must be found ---

_WIDE = (
    ("64 x 250 ms", 64, 0.25, 150.0),
    ("64 x 500 ms", 64, 0.5, 80.0),
    ("no limit, 1 s", 10_000, 1.0, 60.0),
)


def _wide(
    name: str, workers: int, mean_s: float, rate: float, *, step: bool, known: bool
) -> Scenario:
    begin = 25.0 if step else 0.0
    end = begin + 30
    phases = ((begin, rate / 10), (end, rate)) if step else ((end, rate),)
    return Scenario(
        name=f"wide {name}, {'step' if step else 'cold'}, {'known' if known else 'new'}",
        about=f"{rate:g} a second to a healthy application, "
        + ("after a tenth of it" if step else "from the start")
        + (", all stored" if known else ", nothing stored"),
        model=Model(workers=workers, service=exponential(mean_s), mean_s=mean_s),
        load=Load(phases=phases, post_share=0, coverage=1.0 if known else 0.0),
        bars=(
            most("GET errors", m.get_errors(0, end), 0),
            most("needless stored, %", m.stale_share(begin, end), 0.5),
            most("GET p99, x service time", _scaled(m.latency(begin, end, 0.99), mean_s), 6.5),
        ),
    )


def _scaled(measure: m.Measure, by: float) -> m.Measure:
    return lambda run: measure(run) / by


_STEP = ("64 x 250 ms, 200/s", 64, 0.25, 200.0)
_WIDE_ALL = (
    *(
        _wide(*form, step=step, known=known)
        for form in _WIDE
        for step in (False, True)
        for known in (False, True)
    ),
    *(_wide(*_STEP, step=True, known=known) for known in (False, True)),
)


def _burst(name: str, workers: int, took_s: float, count: int, *, cold: bool) -> Scenario:
    at = 0.01 if cold else 20.0
    alone = min(count, workers * round(2.0 / took_s))
    return Scenario(
        name=f"burst of {count}, {name}, {'cold' if cold else 'quiet'}",
        about="GETs at once for new pages, " + ("at the start" if cold else "after 2 a second"),
        model=Model(workers=workers, service=constant(took_s), mean_s=took_s),
        load=Load(
            phases=((at, 0.0 if cold else 2.0), (at + 10, 1.0)),
            post_share=0,
            coverage=0.0,
            bursts=((at, count),),
        ),
        bars=(
            least("answered, % of in time alone", m.burst_answered(alone), 100),
            most("errors beyond those", m.get_errors(0, at + 10), count - alone),
        ),
    )


_BURSTS = tuple(
    _burst(*form, count, cold=cold)
    for form in (
        ("8 x 50 ms", 8, 0.05),
        ("no limit, 50 ms", 10_000, 0.05),
        ("8 x 10 ms", 8, 0.01),
        ("no limit, 1 s", 10_000, 1.0),
    )
    for count in (60, 200, 500)
    for cold in (True, False)
)


def _rare(kind: str, share: float) -> Scenario:
    status = 500 if kind == "fail" else 503
    begin, end = 20.0, 80.0
    return Scenario(
        name=f"rare {status}, {share:.1%}",
        about=f"an application without limits answers that share with {status}",
        model=Model(workers=10_000, faults=(Fault(kind=kind, begin=begin, end=end, amount=share),)),
        load=Load(phases=((end, 160),)),
        bars=(
            most("changes of state", m.transitions(0, end), 0),
            most("stored, x the failures", m.stored_by_failures(begin, end), 1.2),
            most("GET errors", m.get_errors(0, end), 0),
        ),
    )


def _pool(
    name: str,
    about: str,
    times: float,
    *,
    noise: float = 0.0,
    away_s: float = 0.0,
    pool: tuple[tuple[float, int], ...] = ((0.0, 10),),
    bars: tuple[Bar, ...] = (),
) -> Scenario:
    begin, end = WARM_S, WARM_S + 60
    faults = (Fault(kind="fail", begin=0, end=200, amount=noise),) if noise else ()
    model = Model(
        workers=16,
        service=exponential(0.3),
        mean_s=0.3,
        pool=pool,
        faults=faults,
        away_s=away_s,
    )
    return Scenario(
        name=name,
        about="16 workers of 300 ms share 10 connections, else 500 after 5 ms: " + about,
        model=model,
        load=_step(model, times, 60),
        bars=bars
        or (
            least("fresh goodput, % of the pool's", m.goodput(begin, end), 92 * (1 - noise)),
            least("POST ok, %", m.post_ok(begin, end), 99 - 100 * noise),
            most("GET errors", m.get_errors(begin, end), 0),
            most("changes of state", m.transitions(begin, end), 3),
            least("ceiling 9 to 10 after 5 s, %", m.ceiling_between(begin + 5, end, 9, 10), 98),
        ),
    )


def _pool_away(name: str, times: float) -> Scenario:
    """The edge is blurred: a connection is free before its answer is seen.

    Ten at a time of 320 ms each are 94 % of what the pool can do, nine are 84 %.
    """
    begin, end = WARM_S, WARM_S + 60
    return _pool(
        name,
        f"{times:g} times the capacity, and answers are on their way for 20 ms",
        times,
        away_s=0.02,
        bars=(
            least("fresh goodput, % of the pool's", m.goodput(begin, end), 84),
            least("POST ok, %", m.post_ok(begin, end), 97),
            most("GET errors", m.get_errors(begin, end), 0),
            most("changes of state", m.transitions(begin, end), 3),
        ),
    )


_POOL_CHANGES = ((0.0, 10), (WARM_S + 20, 5), (WARM_S + 40, 20))
_POOLS = (
    _pool("pool, 1.5x", "1.5 times the capacity for 60 s", 1.5),
    _pool("pool, 4x", "4 times the capacity for 60 s", 4),
    _pool_away("pool, 1.5x, away", 1.5),
    _pool_away("pool, 4x, away", 4),
    _pool("pool, 4x, 2 % noise", "and 2 % random 500s", 4, noise=0.02),
    _pool(
        "pool that shrinks and grows",
        "5 after 20 s, 20 after 40 s, at 4x",
        4,
        pool=_POOL_CHANGES,
        bars=(
            least("fresh goodput, % of the pool's", m.pool_goodput(WARM_S, WARM_S + 60), 85),
            least("10 s after it shrank", m.pool_goodput(WARM_S + 30, WARM_S + 40), 85),
            least("10 s after it grew", m.pool_goodput(WARM_S + 50, WARM_S + 60), 85),
            most("GET errors", m.get_errors(WARM_S, WARM_S + 60), 0),
        ),
    ),
)


def _stall(*, known: bool) -> Scenario:
    faults = tuple(Fault(kind="hang", begin=at, end=at + 0.5) for at in (10, 15, 20, 25, 30, 35))
    return Scenario(
        name=f"stalls, {'known' if known else 'new'}",
        about="0.5 s every 5 s at 3 ms and 200 a second",
        model=Model(service=exponential(0.003), mean_s=0.003, faults=faults),
        load=Load(phases=((40, 200),), post_share=0, coverage=1.0 if known else 0.0),
        bars=(
            most("GET errors", m.get_errors(0, 40), 0),
            most("needless stored, %", m.stale_share(0, 40), 0.5),
        ),
    )


def _hung(name: str, about: str, rate: float, hung_s: float) -> Scenario:
    begin, end = 60.0, 60.0 + hung_s
    return _trouble(
        name,
        about,
        Fault(kind="hang", begin=begin, end=end),
        (
            most("looked well, times", m.transitions(begin, end, "relieved"), 0),
            least("stalled is the cause", m.first_cause(begin, "stalled"), 1),
            most("GET errors", m.get_errors(0, end + AFTER_S), 0),
            most("closed again after, s", m.closed_after(end), AFTER_S - 3),
        ),
        rate=rate,
    )


def _quiet() -> Scenario:
    fault = Fault(kind="fail", begin=40, end=60, amount=1.0)
    return Scenario(
        name="quiet site",
        about="all fail for 20 s at 1 request a second; from the middle of it on nobody comes",
        model=Model(faults=(fault,)),
        load=Load(phases=((52, 1.0), (100, 0.0)), post_share=0),
        bars=(
            least("failing is the cause", m.first_cause(40, "failing"), 1),
            most("closed again after, s", m.closed_after(60), 20),
            most("GETs a second meanwhile", m.upstream_gets_a_second(53, 100), 1),
            most("GET errors", m.get_errors(0, 100), 0),
        ),
    )


# --- what one client meets ---

_BEGIN, _END = 20.0, 80.0
_LOGIN, _COMMENT = b"OTHER /login", b"OTHER /comment"


def _one_client(
    name: str,
    about: str,
    *nuisances: Nuisance,
    rate: float = 80.0,
    fault: Fault | None = None,
    bars: tuple[Bar, ...] = (),
) -> Scenario:
    end = _END + AFTER_S
    return Scenario(
        name=name,
        about=about,
        model=Model(faults=() if fault is None else (fault,)),
        load=Load(phases=((end, rate),), visitors=200, nuisances=nuisances),
        bars=bars
        or (
            most("visitors' stored answers, %", m.stale_share(0, end), 0),
            most("visitors' errors", m.get_errors(0, end), 0),
            least("visitors' POST ok, %", m.post_ok(0, end), 100),
            most("changes of state", m.transitions(0, end), 0),
            least("no ceiling, %", m.ceiling_between(0, end, inf, inf), 100),
        ),
        quick=not fault,
    )


def _nuisance(
    status: int,
    rate: float,
    *routes: bytes,
    took_s: float = 0.005,
    at_once: int = 1,
    clients: int = 1,
) -> Nuisance:
    return Nuisance(
        begin=_BEGIN,
        end=_END,
        rate=rate,
        status=status,
        routes=routes or (_LOGIN,),
        took_s=took_s,
        at_once=at_once,
        clients=clients,
    )


# Words that a scanner tries, each a route of its own.
_SCANNED = tuple(b"GET /%b" % word for word in (
    b"wp-login.php", b".env", b"admin", b"phpmyadmin", b"cgi-bin", b"backup", b"api", b"shell",
    b"config", b"vendor", b"actuator", b"solr", b"owa", b"login", b"test", b"old",
))  # fmt: skip
_ALL_ROUTES = (*ROUTES, *POST_ROUTES)

_ONE_CLIENT = (
    *(
        _one_client(
            f"one client, {status}, {rate:g}/s of {of:g}/s", about, _nuisance(status, rate), rate=of
        )
        for status, about in (
            (429, "guesses passwords and is throttled"),
            (501, "sends a method that is not known"),
            (500, "sends comments that make the application fail"),
        )
        for rate, of in ((30.0, 80.0), (30.0, 1.0))
    ),
    *(
        _one_client(
            f"one client blocked, {name}, of {of:g}/s",
            "a firewall plugin answers 503 to it",
            _nuisance(503, rate, *_ALL_ROUTES, at_once=at_once),
            rate=of,
        )
        for name, rate, at_once in (("30/s", 30.0, 1), ("60 at once", 60.0, 60), ("1/s", 1.0, 1))
        for of in (80.0, 1.0)
    ),
    _one_client(
        "a scanner, 503", "asks for many pages and is blocked", _nuisance(503, 50.0, *_SCANNED)
    ),
    _one_client(
        "a scanner, 500",
        "finds pages that fail, on a quiet site",
        _nuisance(500, 20.0, *_SCANNED),
        rate=1.0,
    ),
    _one_client(
        "a spammer, slowly",
        "a comment each second fails after a while",
        _nuisance(500, 1.0, _COMMENT, took_s=0.5),
        rate=0.5,
    ),
    _one_client(
        "one failing page, quiet site",
        "a fifth of one request a second is answered 500",
        rate=1.0,
        fault=Fault(kind="fail", begin=30, end=60, route=SLOW_ROUTE, amount=1.0),
        bars=(
            least("other GETs fresh, %", m.fresh_share_without(SLOW_ROUTE, 0, 95), 100),
            most("GET errors", m.get_errors(0, 95), 0),
            most("changes of state", m.transitions(0, 95), 0),
            most("fresh again after, s", m.fresh_after(60), 6),
        ),
    ),
    *(
        _one_client(
            f"refused, and one blocked, of {of:g}/s",
            "an outage of 10 s while a client is blocked",
            _nuisance(503, 30.0, *_ALL_ROUTES),
            rate=of,
            fault=Fault(kind="refuse", begin=40, end=50),
            bars=(
                most("visitors' GET errors", m.get_errors(0, 95), 0),
                most("first stored answer, s", m.first_stored_after(40), first),
                most("fresh again after, s", m.fresh_after(50), 4),
                most("stored later, %", m.stale_share(60, 95), 0),
            ),
        )
        for of, first in ((80.0, 0.5), (1.0, 4.0))
    ),
    *(
        _one_client(
            f"{clients} clients fail, {of:g}/s",
            "everybody gets 503 for 10 s",
            rate=of,
            fault=Fault(kind="unavailable", begin=40, end=50, amount=1.0),
            bars=(
                most("GETs that went to it, a second", m.upstream_gets_a_second(42, 50), 3),
                most("visitors' GET errors", m.get_errors(0, 95), 0),
                most("fresh again after, s", m.fresh_after(50), 4),
            ),
        )
        for clients, of in ((200, 80.0), (200, 10.0))
    ),
)


SCENARIOS: tuple[Scenario, ...] = (
    _overload("5x", _PLAIN, 5, quick=True),
    _overload("2x", _PLAIN, 2, first=0.5, p50=None),
    _overload("20x", _PLAIN, 20, good=85, first=0.15, post_share=0.01),
    _steady("1.2x", _PLAIN, 1.2, 100, 88),
    _steady("1.2x heavy tail", _HEAVY, 1.2, 100, 88),
    _steady("1.2x bimodal", _BIMODAL, 1.2, 100, 88),
    _steady("0.9x", _PLAIN, 0.9, 5, None),
    _steady("0.9x heavy tail", _HEAVY, 0.9, 12, None),
    _steady("0.9x bimodal", _BIMODAL, 0.9, 20, None),
    _steady("0.5x, 5 min", _PLAIN, 0.5, 0.1, None, 300),
    _steady("0.5x heavy tail, 5 min", _HEAVY, 0.5, 0.3, None, 300),
    _steady("0.5x bimodal, 5 min", _BIMODAL, 0.5, 0.3, None, 300),
    _overload(
        "2x heavy tail", _HEAVY, 2, p99=1.5, longest=5, post_p99=4, first=0.5, p50=None, peak=None
    ),
    _overload(
        "5x bimodal", _BIMODAL, 5, good=80, p99=1.5, longest=5, post_p99=6, first=0.5, peak=None
    ),
    _steady("0.5x mixed, 5 min", _MIXED, 0.5, 3, None, 300),
    _overload("5x mixed", _MIXED, 5, good=80, p99=2.5, longest=5, post_p99=6, first=0.5, peak=None),
    _overload(
        "5x, 1 worker",
        _workers(1),
        5,
        good=85,
        p99=1.0,
        post_p99=1.5,
        longest=2.0,
        first=2,
        peak=None,
        p50=None,
    ),
    _overload(
        "5x, 2 workers",
        _workers(2),
        5,
        good=85,
        post_p99=0.8,
        longest=2.0,
        first=1,
        peak=None,
        p50=None,
    ),
    _overload("5x, 32 workers", _workers(32), 5, good=85, post_p99=0.5),
    _overload(
        "5x, 4 workers of 400 ms",
        _workers(4, 0.4),
        5,
        good=85,
        p99=4,
        longest=5,
        post_p99=4,
        first=3,
        peak=None,
        p50=None,
    ),
    _bounded(),
    _collapse(),
    _hang("hang 20 s", 80, 1, 0.7),
    _hang("hang 20 s, 3 rps", 3, 3, 2.5),
    _trouble(
        "refused 20 s",
        "connections refused for 20 s, at 0.5x",
        Fault(kind="refuse", begin=30, end=50),
        (
            most("GET errors", m.get_errors(0, 65), 0),
            most("GET p99, s", m.latency(30, 50, 0.99), 0.02),
            most("GETs a second to the dead upstream", m.upstream_gets_a_second(32, 50), 2),
            most("fresh again after, s", m.fresh_after(50), 3),
            most("leaked", m.leaked, 0),
        ),
        quick=True,
    ),
    _trouble(
        "one slow route",
        "a fifth of the GETs takes 2 s more for 60 s, at 0.5x",
        Fault(kind="slow", begin=30, end=90, route=SLOW_ROUTE, amount=2.0),
        (
            least("other GETs fresh, %", m.fresh_share_without(SLOW_ROUTE, 30, 90), 50),
            most("GET errors", m.get_errors(0, 105), 0),
            most("fresh again after, s", m.fresh_after(90), 6),
        ),
    ),
    _trouble(
        "one failing route",
        "a fifth of the GETs is answered 500 for 30 s, at 0.5x",
        Fault(kind="fail", begin=30, end=60, route=SLOW_ROUTE, amount=1.0),
        (
            least("other GETs fresh, %", m.fresh_share_without(SLOW_ROUTE, 30, 60), 99),
            most("GET errors", m.get_errors(0, 75), 0),
            most("fresh again after, s", m.fresh_after(60), 6),
        ),
    ),
    _trouble(
        "main route fails",
        "seven tenths of the GETs are answered 500 for 30 s, at 0.5x",
        Fault(kind="fail", begin=30, end=60, route=SLOW_ROUTE, amount=1.0),
        (
            least("other GETs fresh, %", m.fresh_share_without(SLOW_ROUTE, 30, 60), 95),
            most("GET errors", m.get_errors(0, 75), 0),
            most("fresh again after, s", m.fresh_after(60), 6),
        ),
        mixes=((0, (3, 28, 3, 3, 3)),),
    ),
    _trouble(
        "5 % random 500s",
        "of all answers, at 0.5x for 60 s",
        Fault(kind="fail", begin=20, end=80, amount=0.05),
        (
            most("stored answers, %", m.stale_share(20, 80), 7),
            most("time not CLOSED, %", m.time_not_closed(20, 80), 0),
            most("GET errors", m.get_errors(0, 95), 0),
        ),
    ),
    _restart("restart in overload", stored=True),
    _restart("restart, store lost", stored=False),
    _restart_with_store(),
    _cold_start("cold start in overload", _PLAIN, 80, 2.3),
    _cold_start("cold start, bimodal", _BIMODAL, 70, 8),
    _cold_start("cold start, mixed", _MIXED, 70, 8),
    _slower("baseline shift, slower", 8, 70),
    _slower("baseline shift, 32 workers", 32, 60),
    _quicker(),
    _mix_shift(),
    _hot_key(),
    _brown_out(),
    _slow_posts(),
    _coverage(),
    _soak(),
    *_WIDE_ALL,
    *_BURSTS,
    _rare("unavailable", 0.002),
    _rare("unavailable", 0.01),
    _rare("unavailable", 0.03),
    _rare("fail", 0.05),
    *_POOLS,
    _stall(known=False),
    _stall(known=True),
    _hung("hung for 14 s", "the state is not left, and the cause is said", 20, 14),
    # Those that hang are given up after 15 s, one by one: few are in flight, nobody is shed.
    _hung("hung, looks idle", "for 25 s, at 1 request a second", 1, 25),
    _hung("hung, looks idle, 2 rps", "for 25 s, at 2 requests a second", 2, 25),
    _quiet(),
    *_ONE_CLIENT,
)
