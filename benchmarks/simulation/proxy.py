"""The proxy around the controller: what RETTER's exchanges do, without bytes."""

import json
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from benchmarks.simulation.application import Application, Model
from benchmarks.simulation.classic import Classic
from benchmarks.simulation.engine import Engine
from benchmarks.simulation.load import POST_ROUTES, ROUTES, Kill, Load, Nuisance
from benchmarks.simulation.run import Answer, Run, Sample
from benchmarks.simulation.workers import Workers
from retter.base.errors import Outcome, outcome_of
from retter.base.reason import Reason
from retter.breaker import Asker, CircuitBreaker, Kind, Permit, Phase
from retter.continuity.learnt import crawlers, learnt, relearn, remember_crawlers

Controller = CircuitBreaker | Workers | Classic

TICK_S = 0.05
UPSTREAM_TIMEOUT_S = 15.0
KEYS = 500
VISITORS_SEED = 77
STORED_ANSWER_S = 0.0002  # what an answer from the store takes


class Request:
    """One request, from its arrival to its answer and on to the application's."""

    __slots__ = (
        "answered",
        "arrived_at",
        "asker",
        "at_upstream",
        "client",
        "generation",
        "is_get",
        "key",
        "nuisance",
        "permit",
        "route",
        "who",
    )

    def __init__(
        self,
        arrived_at: float,
        is_get: bool,
        route: bytes,
        key: bytes,
        client: int = 0,
        nuisance: Nuisance | None = None,
    ) -> None:
        self.arrived_at = arrived_at
        self.is_get = is_get
        self.route = route
        self.key = key
        self.client = client
        self.nuisance = nuisance  # it is one's own; nobody looks at its answers
        self.answered = False
        self.at_upstream = False
        self.permit: Permit | None = None
        self.asker: Asker | None = None  # found out when it is decided about
        self.who = ""  # visitor, office or crawler, where that is told apart


class Proxy:
    """Carries requests between clients, store, controller and application."""

    def __init__(
        self,
        engine: Engine,
        model: Model,
        load: Load,
        rng: Random,
        make_breaker: Callable[[float, Run], Controller],
        run: Run,
    ) -> None:
        self._engine = self.engine = engine
        self._load = load
        self._rng = rng
        # Who asks. Beside a crowd it changes nothing of what is asked for, and when.
        self._dice = rng if load.crowd is None else Random(VISITORS_SEED)
        self._make_breaker = make_breaker
        self._run = run
        self._breaker = make_breaker(0.0, run)
        self._application = Application(engine, model, rng, self._upstream_answered)
        self._stored_at: dict[bytes, float] = {}
        self._uncacheable = {self._key(n) for n in range(KEYS) if n >= round(load.coverage * KEYS)}
        if not load.cold_store:
            self._stored_at = {
                self._key(n): 0.0 for n in range(KEYS) if self._key(n) not in self._uncacheable
            }
        self._learnt = ""
        self._in_flight: set[Request] = set()
        self._failed_page: Request | None = None  # the last that was answered from the store
        engine.at(TICK_S, self._tick)
        if isinstance(self._breaker, Workers):
            self._breaker.begin(self)
            for kill in load.kills:
                engine.at(kill.at, self._kill, kill)
        self._phase = 0
        engine.at(self._next_arrival(0.0), self._arrive)
        for at, count in load.bursts:
            engine.at(at, self._burst, count)
        for nuisance in load.nuisances:
            engine.at(nuisance.begin, self._annoy, [nuisance, 0])
        if load.restart_at is not None:
            engine.at(load.restart_at, self._restart)
            if load.learnt_before_restart_s is not None:
                engine.at(load.restart_at - load.learnt_before_restart_s, self._write_learnt)

    @staticmethod
    def _key(n: int) -> bytes:
        return b"/%d" % n

    # --- arrivals ---

    def _next_arrival(self, now: float) -> float:
        phases = self._load.phases
        while self._phase < len(phases):
            until, rate = phases[self._phase]
            if rate > 0:
                at = now + self._rng.expovariate(rate)
                if at <= until:
                    return at
            now = until
            self._phase += 1
        return float("inf")

    def _arrive(self, _: object) -> None:
        engine, rng = self._engine, self._rng
        at = self._next_arrival(engine.now)
        if at < float("inf"):
            engine.at(at, self._arrive)
        self._ask(rng.random() >= self._load.post_share)

    def _burst(self, count: int) -> None:
        for _ in range(count):
            self._ask(is_get=True)

    def _ask(self, is_get: bool) -> None:
        now, load = self._engine.now, self._load
        n = self._choose_page(now)
        client = 1 + self._dice.randrange(load.visitors) if load.visitors else 0
        self._decide(
            Request(
                now,
                is_get,
                (ROUTES if is_get else POST_ROUTES)[n % len(ROUTES)],
                self._key(n),
                client,
            )
        )

    def _annoy(self, turn: list[Any]) -> None:
        """Let the next requests of a nuisance come."""
        nuisance, count = turn
        now = self._engine.now
        for number in range(count, count + nuisance.at_once):
            route = nuisance.routes[number % len(nuisance.routes)]
            client = 1 + self._load.visitors + number % nuisance.clients
            is_get = route.startswith(b"GET")
            # Pages that nobody else asks for.
            key = b"/nuisance-%d" % number
            self._decide(Request(now, is_get, route, key, client, nuisance))
        wait_s = self._rng.expovariate(nuisance.rate / nuisance.at_once)
        if now + wait_s < nuisance.end:
            self._engine.at(now + wait_s, self._annoy, [nuisance, count + nuisance.at_once])

    def _decide(self, request: Request) -> None:
        now = self._engine.now
        if isinstance(self._breaker, Workers):
            down_until = self._breaker.choose(request.client)
            if down_until > now:  # the socket keeps it
                self._engine.at(down_until, self._decide, request)
                return
        kind = Kind.GET if request.is_get else Kind.OTHER
        stored_at = self._stored_at.get(request.key) if request.is_get else None
        age_s = None if stored_at is None else now - stored_at
        decision = self._breaker.admit(
            now, kind, request.route, request.key, age_s, request.client, self._asker(request)
        )
        if isinstance(decision, Permit):
            request.permit = decision
            decision.holder = request
            if decision.phase is Phase.ADMITTED:
                self._start(request)
        elif decision.serve_stored:
            self._answer(request, "stored")
        else:
            self._answer(request, "error", 503)

    def _asker(self, request: Request) -> Asker | None:
        return None

    def _choose_page(self, now: float) -> int:
        """Return a number below KEYS; its route is the remainder by their number."""
        load, rng = self._load, self._rng
        if rng.random() < load.hot_key_share:
            return 0
        mix = [shares for since, shares in load.mixes if since <= now][-1]
        route = rng.choices(range(len(ROUTES)), mix)[0]
        return int(rng.random() * (KEYS // len(ROUTES))) * len(ROUTES) + route

    def _start(self, request: Request) -> None:
        now = self._engine.now
        assert request.permit is not None
        self._breaker.started(now, request.permit)
        request.at_upstream = True
        self._in_flight.add(request)
        self._run.peaks.append((now, len(self._in_flight)))
        if request.nuisance is not None:
            self._engine.at(now + request.nuisance.took_s, self._nuisance_answered, request)
            return
        if request.is_get:
            self._run.upstream_gets.append(now)
        self._engine.at(now + UPSTREAM_TIMEOUT_S, self._timed_out, request)
        self._application.arrive(request)

    # --- answers ---

    def _nuisance_answered(self, request: Request) -> None:
        assert request.nuisance is not None
        if request.at_upstream:
            status = request.nuisance.status
            self._end(request, outcome_of(status), status)

    def _upstream_answered(self, request: Request, outcome: Outcome) -> None:
        if not request.at_upstream:
            return  # given up: nobody waits for it
        now = self._engine.now
        assert request.permit is not None
        if outcome not in (Outcome.OVERLOAD, Outcome.REFUSED):
            self._breaker.first_byte(now, request.permit)
        if outcome is Outcome.OK and request.is_get and request.key not in self._uncacheable:
            self._stored_at[request.key] = now
        if request.is_get and outcome is not Outcome.OK:
            self._run.failed_gets.append(now)
        status = {Outcome.OK: 200, Outcome.ERROR: 500}.get(outcome, 503)
        self._end(request, outcome, status)

    def _timed_out(self, request: Request) -> None:
        if request.at_upstream:
            self._end(request, Outcome.OVERLOAD, 504)

    def _end(self, request: Request, outcome: Outcome, status: int) -> None:
        now = self._engine.now
        request.at_upstream = False
        self._in_flight.discard(request)
        assert request.permit is not None
        self._breaker.finished(now, request.permit, outcome)
        if not request.answered:
            if outcome is Outcome.OK:
                self._answer(request, "fresh")
            elif request.is_get and request.key in self._stored_at:
                self._failed_page = request
                self._answer(request, "stored")
            else:
                self._answer(request, "error", status)
        if self._breaker.waiting:
            self.start_ready()

    def start_ready(self) -> None:
        """Start those who waited and may go now."""
        breaker, now, free = self._breaker, self._engine.now, True
        while free:
            free = False
            for permit in breaker.take_ready(now):
                request = permit.holder
                assert isinstance(request, Request)
                is_stored = partial(self._stored_at.__contains__, request.key)
                reason = breaker.decide_again(now, permit, is_stored)
                if reason is None:
                    self._start(request)
                    continue
                free = True
                if reason is Reason.SINGLE_FLIGHT:
                    self._answer(request, "stored")
                else:
                    self._answer(request, "error", 503)

    def _answer(self, request: Request, how: str, status: int = 200) -> None:
        now = self._engine.now
        request.answered = True
        if request.nuisance is not None:
            return
        took_s = now - request.arrived_at + (STORED_ANSWER_S if how == "stored" else 0.0)
        age_s = now - self._stored_at[request.key] if how == "stored" else 0.0
        self._run.answers.append(
            Answer(
                request.arrived_at,
                took_s,
                request.is_get,
                how,
                request.route,
                age_s,
                status,
                request.key in self._uncacheable,
                request.who,
            )
        )

    # --- the clock ---

    def _tick(self, _: object) -> None:
        engine, breaker = self._engine, self._breaker
        engine.at(engine.now + TICK_S, self._tick)
        self.answer_late(breaker.tick(engine.now))
        if breaker.waiting:
            self.start_ready()
        limit = cap = ceiling = 0.0
        if isinstance(breaker, Classic):
            state = breaker.state
        else:
            self.probe(breaker)
            state = breaker.circuit.state
            snapshot = breaker.snapshot(engine.now)
            limit, cap, ceiling = snapshot.limit, snapshot.cap, snapshot.ceiling
        self._run.samples.append(
            Sample(
                engine.now,
                limit,
                cap,
                len(self._in_flight),
                state.value,
                self._application.busy_s,
                ceiling,
                self._application.busy_with_others,
            )
        )

    def answer_late(self, permits: list[Permit]) -> None:
        """Answer those whose wait or patience is over."""
        for permit in permits:
            request = permit.holder
            assert isinstance(request, Request)
            if request.is_get and request.key in self._stored_at:
                self._answer(request, "stored")
            else:
                assert permit.phase is Phase.DONE, "only those with a stored response lose patience"
                self._answer(request, "error", 503)

    def probe(self, breaker: CircuitBreaker | Workers) -> None:
        """Ask for a page that failed, if no visitor does."""
        page, now = self._failed_page, self._engine.now
        if page is None:
            return
        permit = breaker.probe(now, page.route, page.key)
        if permit is not None:
            request = Request(now, True, page.route, page.key)
            request.permit = permit
            request.answered = True  # nobody waits for it
            permit.holder = request
            self._start(request)

    def _restart(self, _: object) -> None:
        """The process is replaced: its clients are gone, what it sent upstream is still there."""
        for request in self._in_flight:
            request.at_upstream = False
        self._in_flight.clear()
        now = self._engine.now
        if isinstance(self._breaker, Workers):
            self._breaker.end()
        self._breaker = self._make_breaker(now, self._run)
        if isinstance(self._breaker, Workers):
            self._breaker.begin(self)
        if not isinstance(self._breaker, Classic) and self._learnt:
            age_s = self._load.learnt_before_restart_s or 0.0
            said = json.loads(self._learnt)
            remember_crawlers(self._breaker.circuit, said["crawlers"], age_s, now)
            assert relearn(self._breaker.circuit, said["application"], age_s, now)
        if not self._load.stored_after_restart:
            self._stored_at.clear()

    def _kill(self, kill: Kill) -> None:
        """One worker is killed: its clients are gone, and those that connect now wait for it."""
        breaker, now = self._breaker, self._engine.now
        assert isinstance(breaker, Workers)
        for permit in breaker.kill(kill, now):
            request = permit.holder
            assert isinstance(request, Request)
            request.at_upstream = False
            self._in_flight.discard(request)
        self._engine.at(now + kill.back_after_s, self._come_back, kill.worker)

    def _come_back(self, worker: int) -> None:
        assert isinstance(self._breaker, Workers)
        self._breaker.come_back(worker, self._engine.now)

    def _write_learnt(self, _: object) -> None:
        """Keep what was learnt, as beside a store on disk (proxy/learnt.py)."""
        if not isinstance(self._breaker, Classic):
            breaker, now = self._breaker, self._engine.now
            circuit = breaker.judge if isinstance(breaker, Workers) else breaker.circuit
            said = {"application": learnt(circuit), "crawlers": crawlers(circuit, now)}
            self._learnt = json.dumps(said)

    def leaked(self) -> int:
        """What the controller still counts though nothing is left."""
        breaker = self._breaker
        if isinstance(breaker, Classic):
            return 0
        snapshot = breaker.snapshot(self._engine.now)
        return abs(snapshot.in_flight - len(self._in_flight))
