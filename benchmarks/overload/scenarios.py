"""The scenarios: what happens to the application, and which figures are good enough.

The application has 8 workers and needs 50 ms (exponential) a page: 160 requests a second, unless
a scenario says otherwise. All rates are multiples of that capacity.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

CONNECTIONS: Final = 8
SERVICE_MS: Final = 50.0
PAGES: Final = 500
CALM: Final = 0.5  # the load before and after the stress


class Behind(StrEnum):
    """The application behind the peer."""

    DEMO = "the demonstration shop"
    PHP = "a PHP shop, php-fpm and nginx"
    BLOG = "a PHP blog, php-fpm, nginx and MariaDB"


class Action(StrEnum):
    """An action in the middle of a scenario."""

    RESTART_PROXY = "restart the proxy"
    KILL_PROXY = "kill the proxy and start it again"


@dataclass(frozen=True, slots=True)
class Event:
    """Knobs turned, or an action, so many seconds after the start of the stress."""

    at_s: float
    knobs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit to a figure: `high` says that the figure has to reach it, else it may not pass it."""

    figure: str
    limit: float
    high: bool = False

    def met(self, value: float | None) -> bool:
        """Tell whether the figure is good enough. One that was never reached is not."""
        if value is None:
            return False
        return value >= self.limit if self.high else value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Calm, then stress, then calm again."""

    name: str
    about: str
    rate: float  # during the stress, times capacity
    bars: tuple[Bar, ...]
    behind: Behind = Behind.DEMO
    connections: int = CONNECTIONS  # requests that it works on at once
    service_ms: float = SERVICE_MS  # mean milliseconds that one takes
    calm_s: float = 5.0
    calm_rate: float = CALM
    stress_s: float = 30.0
    after_s: float = 10.0
    after_rate: float = CALM
    post_share: float = 0.1
    model: str = "exponential"
    knobs: Mapping[str, Any] = field(default_factory=dict[str, Any])  # from the beginning
    events: tuple[Event, ...] = ()
    store_on_disk: bool = False  # RETTER has --store
    burst: int = 0  # GETs at one moment when the stress begins
    pages: int = PAGES
    new_pages: bool = False  # every GET is for a page that nobody has asked for yet
    covered: float = 1.0  # share of the pages fetched beforehand
    other_route: float = 0.0  # share of the pages that are /api/product/N
    count_dials: bool = False  # count the connections that the application refuses
    needs_store: bool = False  # says nothing about what has no store
    crawlers: int = 0  # addresses of a crawler at `rate`; visitors ask as in crawl_crowd.py

    @property
    def measured(self) -> bool:
        """Whether the capacity is measured before the load; else the settings say it."""
        return self.behind is not Behind.DEMO

    def seconds(self) -> float:
        """How long the load lasts."""
        return self.calm_s + self.stress_s + self.after_s


def at_least(figure: str, limit: float) -> Bar:
    """Return a bar that the figure has to reach."""
    return Bar(figure, limit, high=True)


# Latencies in seconds, all shares from 0 to 1.
_ANSWERED: Final = (Bar("trouble", 0.0), at_least("post_ok", 1.0))
_QUICK: Final = (Bar("get_p50", 0.010), Bar("get_p99", 0.5))


_FIVE_TIMES: Final = (
    at_least("goodput", 0.85),
    *_QUICK,
    Bar("get_max", 1.0),
    Bar("post_p99", 0.6),
    Bar("first_s", 0.25),
    Bar("again_s", 3.0),
    *_ANSWERED,
)


def _hang(seconds: float) -> tuple[Event, ...]:
    return (
        Event(0.0, {"condition": "hung"}),
        Event(seconds, {"condition": "healthy"}),
    )


def _wide() -> tuple[Scenario, ...]:
    """Healthy applications that are wider than what RETTER begins with."""
    healthy = (Bar("refused", 0.0), Bar("stored", 0.005), at_least("post_ok", 1.0))
    cold = Scenario(
        name="wide-cold",
        about="64 workers, 250 ms, 59 %: new pages from the first second after the start",
        rate=0.59,
        connections=64,
        service_ms=250.0,
        pages=100,
        new_pages=True,
        calm_s=0.0,
        stress_s=25.0,
        after_s=1.0,
        bars=healthy,
    )
    step = replace(cold, calm_s=15.0, calm_rate=0.06, stress_s=20.0)
    known, about = replace(cold, new_pages=False), "the same with known pages"
    return (
        cold,
        replace(known, name="wide-known", about=about),
        replace(step, name="wide-step", about="from 6 % to 59 % after 15 s; new pages"),
        replace(step, name="wide-step-known", about=about, new_pages=False),
    )


def _burst() -> tuple[Scenario, ...]:
    """Many GETs for new pages at one moment, and an application that is idle and healthy."""
    first = Scenario(
        name="burst-60",
        about="60 new pages at one moment, after 8 s at 10 %",
        rate=0.0,
        calm_rate=0.1,
        calm_s=8.0,
        stress_s=8.0,
        after_s=1.0,
        after_rate=0.1,
        burst=60,
        pages=20,
        new_pages=True,
        post_share=0.0,
        bars=(Bar("refused", 0.0),),
    )
    return (
        first,
        replace(first, name="burst-200", about="200 new pages at one moment", burst=200),
        replace(
            first,
            name="burst-500",
            about="500 at one moment, 64 workers, 50 ms",
            burst=500,
            connections=64,
            calm_rate=0.01,
            after_rate=0.01,
        ),
        replace(
            first,
            name="burst-500-8",
            # Within --queue-wait, 2 s, it makes 320 of them.
            about="500 at one moment, 8 workers, 50 ms: 64 % can be made within 2 s",
            burst=500,
            bars=(Bar("refused", 0.40),),
        ),
        replace(
            first,
            name="burst-cold",
            about="200 at one moment, the first that are ever asked for",
            burst=200,
            calm_s=0.0,
        ),
    )


def _rare() -> tuple[Scenario, ...]:
    """Few failures of an application without limits, that lean to nothing."""
    return tuple(
        Scenario(
            name=f"rare-{status}-{100 * share:g}",
            about=f"{status} to {100 * share:g} % of the requests, 160/s, no limit; GETs only",
            # Two hundred workers are never busy: 160 requests a second are 8 at a time.
            rate=0.04,
            connections=200,
            pages=100,
            calm_s=2.0,
            calm_rate=0.04,
            after_s=2.0,
            after_rate=0.04,
            post_share=0.0,
            events=(
                Event(
                    0.0, {"condition": "failing", "failing_share": share, "failing_status": status}
                ),
                Event(30.0, {"condition": "healthy"}),
            ),
            bars=(Bar("changes", 0), Bar("stored_per_failure", 1.2), Bar("trouble", 0.0)),
        )
        for status, share in ((503, 0.002), (503, 0.01), (503, 0.03), (500, 0.05))
    )


def _pool() -> tuple[Scenario, ...]:
    """Ten connections, held for the whole of a request; without one a page fails at once."""
    return tuple(
        Scenario(
            name=f"pool-{rate:g}x",
            about=f"10 connections, 300 ms; without one a 500 after 5 ms; {rate:g}x",
            rate=rate,
            connections=10,
            service_ms=300.0,
            # The pages without a connection are done so soon that 16 workers are always enough.
            knobs={"backlog": 0, "overflow_status": 500, "overflow_ms": 5},
            pages=100,
            stress_s=45.0,
            after_s=5.0,
            bars=(
                # What 1500 exponential times make in 45 s differs by 2.6 % (one sigma).
                at_least("goodput", 0.90),
                at_least("post_ok", 0.99),
                Bar("changes", 3),
                Bar("trouble", 0.0),
            ),
        )
        for rate in (1.5, 4.0)
    )


def _crawl() -> tuple[Scenario, ...]:
    """Visitors with addresses, sessions and tickets beside a crawler."""
    few = Scenario(
        name="crawl-20",
        about="60 visitors at 0.4x, 36 of them with a session, beside a crawler at 4x from 20 "
        "addresses; 8 workers, 200 ms",
        rate=4.0,
        service_ms=200.0,
        calm_s=6.0,
        stress_s=20.0,
        after_s=0.0,
        crawlers=20,
        bars=(
            at_least("visitors_fresh", 0.95),
            Bar("visitors_errors", 0.002),
            at_least("never_answered", 0.97),
            at_least("post_ok", 1.0),
        ),
    )
    many = replace(
        few,
        name="crawl-5000",
        about="the same from 5,000 addresses, none of which asks for more than a visitor",
        crawlers=5000,
        bars=(
            at_least("visitors_fresh", 0.93),
            Bar("visitors_errors", 0.0),
            at_least("never_answered", 0.99),
            at_least("post_ok", 1.0),
        ),
    )
    return few, many


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        name="0.5x",
        about="half of the capacity for two minutes: nothing should be served stored",
        rate=0.5,
        stress_s=120.0,
        after_s=1.0,
        bars=(Bar("stored", 0.003), *_ANSWERED),
    ),
    Scenario(
        name="0.9x",
        about="just below the capacity",
        rate=0.9,
        bars=(Bar("stored", 0.05), *_ANSWERED),
    ),
    Scenario(
        name="1.2x",
        about="just above the capacity",
        rate=1.2,
        bars=(at_least("goodput", 0.88), *_ANSWERED),
    ),
    Scenario(
        name="2x",
        about="twice the capacity",
        rate=2.0,
        bars=(at_least("goodput", 0.90), *_QUICK, Bar("first_s", 0.5), *_ANSWERED),
    ),
    Scenario(
        name="5x",
        about="five times the capacity",
        rate=5.0,
        bars=_FIVE_TIMES,
    ),
    Scenario(
        name="20x",
        # 10 % would be twice the capacity in POSTs alone, which nobody may refuse.
        about="twenty times the capacity, 1 % POST",
        rate=20.0,
        post_share=0.01,
        bars=(at_least("goodput", 0.85), *_QUICK, Bar("first_s", 0.15), *_ANSWERED),
    ),
    Scenario(
        name="hang",
        about="the application hangs for 20 s at half of its load",
        rate=CALM,
        stress_s=20.0,
        after_s=15.0,
        events=_hang(20.0),
        bars=(Bar("get_max", 1.0), Bar("first_s", 0.7), Bar("again_s", 4.0), Bar("trouble", 0.0)),
    ),
    Scenario(
        name="refused",
        about="the application refuses connections for 20 s; GETs only",
        rate=CALM,
        stress_s=20.0,
        post_share=0.0,
        events=(Event(0.0, {"condition": "dead", "dead_for_s": 20.0}),),
        count_dials=True,
        bars=(
            Bar("get_p99", 0.020),
            Bar("dials_per_s", 2.0),
            Bar("again_s", 3.0),
            Bar("trouble", 0.0),
        ),
    ),
    Scenario(
        name="collapse",
        about="an application that gets slower with concurrency: 3x, then 0.7x",
        rate=3.0,
        stress_s=20.0,
        after_s=15.0,
        after_rate=0.7,
        model="collapse",
        bars=(at_least("goodput", 0.80), Bar("again_s", 5.0), *_ANSWERED),
    ),
    Scenario(
        name="bimodal",
        about="80 % of the pages take 5 ms, 20 % 800 ms; 5x",
        rate=5.0,
        model="bimodal",
        bars=(at_least("goodput", 0.80), Bar("get_p99", 1.5), Bar("get_max", 5.0), *_ANSWERED),
    ),
    Scenario(
        name="backlog",
        about="8 may wait, all others get a 503; 5x",
        rate=5.0,
        knobs={"backlog": 8},
        bars=(at_least("post_ok", 0.97), Bar("trouble", 0.0)),
    ),
    Scenario(
        name="slow-route",
        about="a route with a quarter of the load takes 2 s longer",
        rate=CALM,
        other_route=0.25,
        events=(
            Event(0.0, {"slow_routes_ms": {"/api/": 2000}}),
            Event(30.0, {"slow_routes_ms": {}}),
        ),
        bars=(at_least("others_fresh", 0.50), *_ANSWERED),
    ),
    Scenario(
        name="failing-route",
        about="a route with a quarter of the load answers 500",
        rate=CALM,
        other_route=0.25,
        events=(
            Event(0.0, {"failing_routes": {"/api/": 1}}),
            Event(30.0, {"failing_routes": {}}),
        ),
        bars=(at_least("others_fresh", 0.99), Bar("again_s", 6.0), *_ANSWERED),
    ),
    Scenario(
        name="random-500",
        about="one page in twenty is a 500, at half of the capacity; GETs only",
        rate=CALM,
        post_share=0.0,
        events=(
            Event(0.0, {"condition": "failing", "failing_share": 0.05}),
            Event(30.0, {"condition": "healthy"}),
        ),
        bars=(Bar("stored", 0.07), Bar("trouble", 0.0)),
    ),
    Scenario(
        name="coverage",
        about="only four pages in five were ever fetched; 5x",
        rate=5.0,
        covered=0.8,
        needs_store=True,
        bars=(Bar("post_p99", 0.6), Bar("unknown_max", 2.3), *_ANSWERED),
    ),
    Scenario(
        name="restart",
        about="the proxy is restarted, with an empty store, in the middle of 5x",
        rate=5.0,
        events=(Event(5.0, action=Action.RESTART_PROXY),),
        needs_store=True,
        # What was stored is gone, so GETs are refused at first, and some wait for their turn.
        bars=(at_least("goodput", 0.80), Bar("get_max", 2.3)),
    ),
    Scenario(
        name="killed",
        about="RETTER with --store is killed (-9) and started again in the middle of 5x",
        rate=5.0,
        events=(Event(12.0, action=Action.KILL_PROXY),),
        store_on_disk=True,
        needs_store=True,
        # Nobody listens until it runs again: about a second of the thirty.
        bars=(at_least("goodput", 0.85), Bar("get_max", 2.0), Bar("refused", 0.06)),
    ),
    Scenario(
        name="php-5x",
        about="a PHP shop, 8 php-fpm workers behind nginx; 5x",
        rate=5.0,
        behind=Behind.PHP,
        bars=_FIVE_TIMES,
    ),
    *_wide(),
    *_burst(),
    *_rare(),
    *_pool(),
    *_crawl(),
    Scenario(
        name="database",
        about="a PHP blog, 16 php-fpm workers, a MariaDB of 10 connections: the eleventh page is a "
        "500 in 5 ms; 4x",
        rate=4.0,
        behind=Behind.BLOG,
        connections=10,
        pages=100,
        stress_s=45.0,
        after_s=5.0,
        bars=(
            at_least("goodput", 0.90),
            at_least("post_ok", 0.98),
            Bar("changes", 3),
            Bar("trouble", 0.0),
        ),
    ),
)

QUICK: Final = ("5x", "hang", "refused", "collapse")


def quick(scenario: Scenario) -> Scenario:
    """Return the scenario in short, for a first impression; its events keep their proportions."""
    stress_s = 6.0
    shrink = stress_s / scenario.stress_s
    return replace(
        scenario,
        calm_s=2.0,
        stress_s=stress_s,
        after_s=5.0,
        events=tuple(
            replace(event, at_s=event.at_s * shrink, knobs=_shorter(event.knobs, stress_s))
            for event in scenario.events
        ),
    )


def _shorter(knobs: Mapping[str, Any], stress_s: float) -> Mapping[str, Any]:
    return {**knobs, "dead_for_s": stress_s} if "dead_for_s" in knobs else knobs
