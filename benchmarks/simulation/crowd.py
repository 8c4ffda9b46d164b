"""Visitors with addresses, sessions and tickets, beside crawlers that leave them no place.

The visitors come again when they are told to wait; a crawler takes what it gets.
"""

from collections.abc import Callable
from random import Random

from benchmarks.simulation.application import Model
from benchmarks.simulation.classic import Classic
from benchmarks.simulation.engine import Engine
from benchmarks.simulation.load import ROUTES, Crawl, Load
from benchmarks.simulation.proxy import Controller, Proxy, Request
from benchmarks.simulation.run import Run
from retter.breaker import Asker
from retter.store.known_sessions import ISSUED

OFFICE = 999_999  # the address that some visitors share
CRAWLERS = 1_000_000  # the first address of theirs
SESSIONS = 10_000_000  # the first session of a visitor
TRIES_MAX = 12  # then a visitor gives up


class CrowdedProxy(Proxy):
    """A proxy whose clients have addresses and memories."""

    def __init__(
        self,
        engine: Engine,
        model: Model,
        load: Load,
        rng: Random,
        make_breaker: Callable[[float, Run], Controller],
        run: Run,
    ) -> None:
        assert load.crowd is not None
        self._crowd = load.crowd
        self._crawled = 0
        self._tickets: dict[Request, bytes] = {}  # of those that come again
        self._tries: dict[Request, tuple[int, float]] = {}  # how many, and when the last began
        self._loot = b""  # a ticket that a crawler was given
        self._patience = Random(rng.random())  # how long they stay away
        super().__init__(engine, model, load, rng, make_breaker, run)
        for crawl in load.crowd.crawls:
            engine.at(crawl.begin, self._crawl, crawl)

    # --- what is asked for ---

    def _ask(self, is_get: bool) -> None:
        parts = self._crowd.parts
        if parts == 1 or not is_get:
            super()._ask(is_get)
        elif self._rng.random() * parts < 1:  # as many requests as without
            visitor = 1 + self._dice.randrange(self._load.visitors)
            for _ in range(parts):
                page = self._choose_page(self._engine.now)
                route, key = ROUTES[page % len(ROUTES)], self._key(page)
                self._decide(Request(self._engine.now, True, route, key, visitor))

    # --- who asks ---

    def _asker(self, request: Request) -> Asker | None:
        if request.asker is None:
            request.asker = self._asker_of(request)
        return request.asker

    def _asker_of(self, request: Request) -> Asker:
        visitor = request.client - 1
        in_office = visitor < self._crowd.office
        # Those in the office are known like the others, or not at all.
        known = (visitor * 7919) % self._load.visitors
        request.who = "office" if in_office else "visitor"
        address = OFFICE if in_office else request.client
        ticket = self._tickets.pop(request, b"")
        if known < self._crowd.known_share * self._load.visitors:
            return Asker(address, "", SESSIONS + request.client, ISSUED, "", ticket)
        return Asker(address, ticket=ticket)

    # --- coming again ---

    def _answer(self, request: Request, how: str, status: int = 200) -> None:
        breaker = self._breaker
        if (
            how == "error"
            and request.is_get
            and request.nuisance is None
            and not isinstance(breaker, Classic)
            and breaker.circuit.fairness is not None
        ):
            asker = self._asker(request)
            assert asker is not None
            tries, tried_at = self._tries.pop(request, (1, request.arrived_at))
            if request.who == "crawler":
                if not self._loot:
                    self._loot, _ = breaker.circuit.fairness.ticket_for(asker, self._engine.now)
            elif self._crowd.come_again and tries < TRIES_MAX:
                ticket, _ = breaker.circuit.fairness.ticket_for(asker, self._engine.now)
                request.answered = True
                now = self._engine.now
                wait_s = max(2.0, 2 + 2 * self._patience.random() - (now - tried_at))
                self._engine.at(now + wait_s, self._come_again, (request, ticket, tries + 1))
                return
        self._tries.pop(request, None)
        super()._answer(request, how, status)

    def _come_again(self, again: tuple[Request, bytes, int]) -> None:
        before, ticket, tries = again
        request = Request(before.arrived_at, True, before.route, before.key, before.client)
        self._tickets[request] = ticket
        self._tries[request] = tries, self._engine.now
        self._decide(request)

    # --- crawlers ---

    def _crawl(self, crawl: Crawl) -> None:
        now, rng = self._engine.now, self._rng
        at = now + rng.expovariate(crawl.rate)
        if at < crawl.end:
            self._engine.at(at, self._crawl, crawl)
        self._crawled += 1
        address = CRAWLERS + rng.randrange(crawl.addresses)
        key = b"/crawled/%d" % self._crawled
        route = ROUTES[1]
        if crawl.stored_pages:
            page = self._choose_page(now)
            key, route = self._key(page), ROUTES[page % len(ROUTES)]
        else:
            self._uncacheable.add(key)
        session = SESSIONS * 2 + self._crawled if crawl.sessions else 0
        ticket = b""
        if crawl.ticket == "forged":
            ticket = b"%032d" % self._crawled
        elif crawl.ticket == "replayed":
            ticket = self._loot
        request = Request(now, True, route, key, address)
        request.who = "crawler"
        request.asker = Asker(address, "", session, crawler=crawl.word, ticket=ticket)
        self._decide(request)
