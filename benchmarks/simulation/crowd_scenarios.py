"""Fairness: visitors beside crawlers, an office, tickets; and no crawler at all."""

from dataclasses import replace

from benchmarks.simulation import measure as m
from benchmarks.simulation.application import Model, exponential
from benchmarks.simulation.load import Crawl, Crowd, Load
from benchmarks.simulation.scenarios import (
    SCENARIOS,
    WARM_S,
    Bar,
    Scenario,
    least,
    most,
)

VISITORS = 200
VISITORS_SHARE = 0.4  # of the capacity is what they ask for
COVERAGE = 0.95  # of the pages have a stored response
BEGIN, END = WARM_S, WARM_S + 30
LEARN_S = 1.0  # a crawler is known as one by then

_PLAIN = Model()
_SLOW = Model(service=exponential(0.2), mean_s=0.2)


def _crawled(
    name: str,
    about: str,
    times: float,
    addresses: int,
    bars: tuple[Bar, ...],
    crowd: Crowd | None = None,
    *,
    model: Model = _PLAIN,
    visitors: int = VISITORS,
    quick: bool = False,
    word: str = "",
    stored_pages: bool = False,
    sessions: bool = False,
    ticket: str = "",
) -> Scenario:
    crawl = Crawl(
        begin=BEGIN,
        end=END,
        rate=times * model.capacity,
        addresses=addresses,
        word=word,
        stored_pages=stored_pages,
        sessions=sessions,
        ticket=ticket,
    )
    return Scenario(
        name=name,
        about=about,
        model=model,
        load=Load(
            phases=((END + 15, VISITORS_SHARE * model.capacity),),
            coverage=COVERAGE,
            visitors=visitors,
            crowd=replace(crowd or Crowd(), crawls=(crawl,)),
        ),
        bars=bars,
        quick=quick,
    )


def _whole(*, few: bool) -> Bar:
    """Say what all clients together get of the application.

    If few answers fit into the time, chance decides how long they take, and so how many fit.
    """
    begin = BEGIN + LEARN_S
    if few:
        return most("workers idle, %", m.workers_idle(begin, END), 8)
    return least("goodput of all, % of capacity", m.goodput(begin, END), 92)


def _well(fresh: float = 95.0, *, few: bool = False) -> tuple[Bar, ...]:
    begin = BEGIN + LEARN_S
    return (
        least("visitors' GETs fresh, %", m.share_of("visitor", "fresh", begin, END), fresh),
        most("visitors' errors, %", m.share_of("visitor", "error", begin, END), 0.2),
        least("their never stored pages, %", m.without_stored_answered("visitor", begin, END), 97),
        _whole(few=few),
        least("crawler's share of capacity, %", m.share_of_capacity("crawler", begin, END), 50),
        least("POST ok, %", m.post_ok(BEGIN, END), 100),
        most("leaked", m.leaked, 0),
    )


def _patient(*, few: bool = False) -> tuple[Bar, ...]:
    begin = BEGIN + LEARN_S
    return (
        least("visitors' GETs fresh, %", m.share_of("visitor", "fresh", begin, END), 93),
        most("visitors' errors at last, %", m.share_of("visitor", "error", begin, END), 0),
        least("their never stored pages, %", m.without_stored_answered("visitor", begin, END), 99),
        most("95 % of these within, s", m.without_stored_took("visitor", begin, END, 0.95), 5),
        _whole(few=few),
        least("POST ok, %", m.post_ok(BEGIN, END), 100),
        most("leaked", m.leaked, 0),
    )


_PATIENT = Crowd(known_share=0.6, come_again=True)


def _office(name: str, about: str, crowd: Crowd, bars: tuple[Bar, ...]) -> Scenario:
    return _crawled(name, about, 4, 20, bars, crowd)


def _offices() -> tuple[Scenario, ...]:
    begin = BEGIN + LEARN_S
    fresh = m.share_of("office", "fresh", begin, END)
    return (
        _office(
            "office, sessions",
            "60 of the visitors behind one address, beside a crawl of 4x",
            Crowd(known_share=1.0, office=60),
            (
                most(
                    "behind the others, points",
                    m.difference(m.share_of("visitor", "fresh", begin, END), fresh),
                    5,
                ),
                least("fresh in the office, %", fresh, 90),
            ),
        ),
        _office(
            "office, no sessions",
            "the same, and nobody is known",
            Crowd(office=60),
            (
                least("fresh in the office, %", fresh, 60),
                most("errors with a stored response", m.needless_errors("office", begin, END), 0),
                least("others fresh, %", m.share_of("visitor", "fresh", begin, END), 95),
            ),
        ),
    )


def _flash_crowd() -> Scenario:
    model = next(scenario for scenario in SCENARIOS if scenario.name == "5x")
    return replace(
        model,
        name="flash crowd",
        about="5x from 5,000 light clients for 30 s, and no crawler",
        load=replace(model.load, visitors=5000, crowd=Crowd()),
        quick=False,
    )


def _calm(times: float, duration_s: float, stored: float) -> Scenario:
    end = WARM_S + duration_s
    return Scenario(
        name=f"{times:g}x, visitors told apart",
        about=f"{times:g} times the capacity for {duration_s:g} s, from {VISITORS} visitors",
        model=_PLAIN,
        load=Load(
            phases=((WARM_S, 0.5 * _PLAIN.capacity), (end, times * _PLAIN.capacity)),
            visitors=VISITORS,
            crowd=Crowd(known_share=0.6),
        ),
        bars=(
            most("stored answers, %", m.stale_share(WARM_S, end), stored),
            most("GET errors", m.get_errors(0, end), 0),
        ),
    )


def _all() -> tuple[Scenario, ...]:
    made_up = "a new session with each request, made up; 4x"
    return (
        *[
            _crawled(
                f"crawl {times}x, {addresses} addresses",
                "beside 200 visitors at 0.4x, whom nothing tells apart but their addresses",
                times,
                addresses,
                _well(),
                quick=(times, addresses) == (4, 20),
            )
            for times in (1, 4, 10)
            for addresses in (20, 100)
        ],
        *[
            _crawled(
                f"crawl {times}x, 20,000 addresses",
                "a handful each; 60 % of the visitors known, who waits comes again",
                times,
                20_000,
                _patient(),
                _PATIENT,
                quick=times == 4,
            )
            for times in (1, 4, 10)
        ],
        _crawled(
            "crawl that says so",
            "by its User-Agent; 4x from 20,000 addresses",
            4,
            20_000,
            _well(),
            word="bot",
        ),
        _crawled(
            "crawl at a slow application",
            "4x from 20 addresses; an answer takes 200 ms",
            4,
            20,
            _well(few=True),
            model=_SLOW,
        ),
        _crawled(
            "crawl at a slow application, 5,000 addresses",
            "4x, an answer takes 200 ms; 60 visitors ask for more than each crawler",
            4,
            5000,
            _patient(few=True),
            _PATIENT,
            model=_SLOW,
            visitors=60,
        ),
        _crawled(
            "crawl, pages of six parts",
            "4x from 20 addresses; a visitor sends six GETs at once",
            4,
            20,
            _well(90),
            Crowd(parts=6),
        ),
        _crawled(
            "crawl over stored pages", "4x, 20 addresses", 4, 20, _well(95)[:2], stored_pages=True
        ),
        _flash_crowd(),
        *_offices(),
        _crawled("crawl with sessions, 20", made_up, 4, 20, _well(), sessions=True),
        _crawled(
            "crawl with sessions, 20,000", made_up, 4, 20_000, _patient(), _PATIENT, sessions=True
        ),
        *[
            _crawled(
                f"crawl with a ticket, {ticket}",
                "4x, 20,000 addresses",
                4,
                20_000,
                _patient(),
                _PATIENT,
                ticket=ticket,
            )
            for ticket in ("forged", "replayed")
        ],
        _calm(0.5, 300, 0.1),
        _calm(0.9, 60, 5),
    )


CROWDED = _all()
