"""Clients, an application and an operator do anything for a while; then all is well, and must be.

In each history, proper clients ask, send requests in halves, stop reading and leave; an application
answers in many ways, in pieces, or not at all; the clock goes on. Then the application answers
everything, all clients read, and the operator lets everything through. From then on:

- Each client that is connected has a whole answer to each of its requests, in their order, and its
  connection is read. It asks again and gets its answer, too.
- A connection that is closed was closed for a reason that its client can see (`Visitor.check`).
- When all clients have left, nothing is in flight, waits, or counts for anybody.
- Each request has one line in the access log, and is counted as what the line says.

A history is made of its seed alone. The suite plays some of them; this plays more:

    HISTORIES=50000 pytest -n 0 tests/proxy/test_random_histories.py

tests/proxy/test_fuzz.py has what is malformed, and the time limits of clients that fall silent.
"""

import gzip
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from math import inf
from typing import Any

import pytest

from retter.base.errors import ConnectRefused
from retter.breaker import Mode
from retter.proxy.holders import resume
from retter.store.write_behind import Found
from tests.fuzz.stopwatch import Stopwatch
from tests.fuzz.wire import Message, answers_in
from tests.fuzz.world import Client, Ledger, Upstream, cut
from tests.support.harness import FakePeer, FakeProxy
from tests.support.tracing import untraced

pytestmark = untraced

HISTORIES = int(os.environ.get("HISTORIES", "600"))
PARTS = 8  # tests, so that several processes share them

CLIENTS_MAX = 6
STEPS_MAX = 120
ASKED_AGAIN_S = 5.0  # so long after it has said what it has, another box is asked again
ROUNDS_MAX = 400  # until all is well again; a round is a tenth of a second

# No client is ever too slow: its connection ends for what the application does, or for no reason.
PATIENT: dict[str, Any] = {
    "keep_alive_s": 5000.0, "write_timeout_s": 5000.0, "head_timeout_s": 5000.0,
    "body_idle_timeout_s": 5000.0, "body_min_rate_bytes": 0, "upstream_timeout_s": 8.0,
    "upstream_timeout_unsafe_s": 12.0, "upstream_body_timeout_s": 5.0,
}  # fmt: skip
# Each history has some of these; half of all have few places, so that requests wait.
FEW_PLACES: tuple[dict[str, Any], ...] = tuple(
    {"max_in_flight": places, "limit_start": 1} for places in (1, 2, 3)
)
SETTINGS: tuple[tuple[dict[str, Any], ...], ...] = (
    tuple({"circuit": mode} for mode in ("open", "closed", "observe")),
    tuple({"fairness": mode} for mode in ("off", "observe", "on")),
    tuple({"queue_wait_s": wait_s} for wait_s in (0.5, 2.0, 30.0)),
    tuple({"queue_max": length} for length in (0, 1, 3)),
    tuple({"write_wait_s": wait_s} for wait_s in (0.0, 1.0, 5.0)),
    tuple({"connect_hold_s": hold_s} for hold_s in (0.0, 1.0)),
    tuple({"buffer_request_bytes": size} for size in (0, 4, 1000)),
    tuple({"buffer_answer_bytes": size} for size in (0, 100, 10_000)),
    tuple({"buffer_memory_bytes": size} for size in (0, 400, 4000)),
    tuple({"store_object_bytes_max": size} for size in (10, 3000)),
    tuple({"failure_volume": volume, "failure_ratio": 0.1} for volume in (1, 2, 5)),
    tuple({"pool_size": size} for size in (0, 1)),
    tuple({"pipeline_max": count} for count in (1, 2)),
    ({"compress": ()}, {"compress": ("gzip",), "compress_min_bytes": 1}),
    ({"open_min_s": 0.5, "open_max_s": 2.0},),
    ({"patience_max_s": 1.0, "patience_min_s": 0.3, "patience_closed_s": 0.7},),
    ({"stream_paths": ("/s*",)}, {"limit_head": True}, {"headers": False}),
    ({"failure_statuses": (404,)}, {"failure_text": ("auto", "Oops sorry")}),
    ({"fresh_for_s": 1.0}, {"store_policy": "rfc9111"}),
    ({"requests_per_connection_max": 2}, {"connections_max": 3}),
    ({"trusted_proxies": (ip_network("192.0.2.0/24"),)},),
)
SETTING_CHANCE = 0.25


# -- what is said ------------------------------------------------------------------------------


def asks(line: bytes = b"GET %b", fields: bytes = b"", body: bytes = b"") -> bytes:
    """Return a request whose target is to be filled in."""
    if body and b"chunked" not in fields:
        fields += b"Content-Length: %d\r\n" % len(body)
    version = b"" if b"HTTP/" in line else b" HTTP/1.1"
    return line + version + b"\r\nHost: shop.example\r\n" + fields + b"\r\n" + body


PAGE = "a page"
REQUESTS: dict[str, bytes] = {
    PAGE: asks(),
    "a page for a browser": asks(fields=b"Accept: text/html\r\n"),
    "a page, compressed": asks(fields=b"Accept-Encoding: gzip\r\n"),
    "a page of a session": asks(fields=b"Cookie: PHPSESSID=1\r\n"),
    "a page of another session": asks(fields=b"Cookie: PHPSESSID=2\r\n"),
    "a page with a password": asks(fields=b"Authorization: Basic eDp5\r\n"),
    "a page by NTLM": asks(fields=b"Authorization: NTLM eA==\r\n"),
    "a page through a proxy": asks(fields=b"X-Forwarded-For: 10.0.0.1\r\n"),
    "a page if it is new": asks(fields=b'If-None-Match: "x"\r\n'),
    "a part of a page": asks(fields=b"Range: bytes=0-1\r\n"),
    "by HTTP/1.0": asks(b"GET %b HTTP/1.0"),
    "by HTTP/1.0, and stays": asks(b"GET %b HTTP/1.0", b"Connection: keep-alive\r\n"),
    "a head": asks(b"HEAD %b"),
    "options": asks(b"OPTIONS %b"),
    "events": asks(fields=b"Accept: text/event-stream\r\n"),
    "a stream": asks(b"GET /s%b"),
    "a form": asks(b"POST %b", body=b"x=y"),
    "a login": asks(b"POST /login", body=b"password=z&u=v"),
    "a large form": asks(b"POST %b", body=b"x" * 70_000),
    "chunks": asks(b"PUT %b", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    "a form, if it may": asks(b"POST %b", b"Expect: 100-continue\r\n", b"x" * 2000),
    "a GET with a body": asks(body=b"q"),
}
PAGES_SHARE = 0.4  # of all requests


@dataclass(frozen=True)
class Answer:
    """What the application may say.

    Attributes:
        then: "ends" or "resets": it does this after the last piece.
        pieces: The most that it comes in.
    """

    status: bytes = b"200 OK"
    fields: bytes = b""
    body: bytes = b"hello"
    framing: str = "length"
    pieces: int = 1
    then: str = ""

    def written(self, method: bytes) -> bytes:
        """Return it as octets."""
        head = b"HTTP/1.1 " + self.status + b"\r\nDate: then\r\n" + self.fields
        body = self.body
        if self.framing == "length":
            head += b"Content-Length: %d\r\n" % len(body)
        elif self.framing == "chunked":
            head += b"Transfer-Encoding: chunked\r\n"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return head + b"\r\n" + (b"" if method == b"HEAD" else body)


EVENTS = b"text/event-stream"
HTML = b"Content-Type: text/html\r\n"
GZIP = b"Content-Encoding: gzip\r\n"
WELL = Answer()
ANSWERS: dict[str, Answer] = {
    "well": WELL,
    "in pieces": Answer(pieces=4),
    "as a page": Answer(fields=HTML, body=b"<html>" + b"x" * 3000 + b"</html>"),
    "as half a page": Answer(fields=HTML, body=b"<html>" + b"x" * 3000),
    "as a page that has failed": Answer(fields=HTML, body=b"Oops sorry"),
    "at length": Answer(body=b"y" * 70_000, pieces=3),
    "at great length": Answer(body=b"y" * 300_000, pieces=4),
    "with a session": Answer(fields=b"Set-Cookie: PHPSESSID=1\r\n"),
    "compressed": Answer(fields=GZIP + b"Vary: Accept-Encoding\r\n", body=gzip.compress(b"a")),
    "compressed, at length": Answer(
        fields=GZIP, body=gzip.compress(random.Random(1).randbytes(8000)), pieces=3
    ),
    "of a variant": Answer(fields=b"Vary: Accept\r\n"),
    "for the last time": Answer(fields=b"Connection: close\r\n"),
    "in chunks": Answer(framing="chunked"),
    "in chunks, in pieces": Answer(framing="chunked", pieces=4),
    "until it ends": Answer(framing="end", then="ends"),
    "with nothing until it ends": Answer(body=b"", framing="end", then="ends"),
    "until it breaks off": Answer(framing="end", pieces=3, then="resets"),
    "with a part": Answer(pieces=3, then="resets"),
    "with events": Answer(
        fields=b"Content-Type: " + EVENTS + b"\r\n", body=b"data: x\n\n", framing="end",
        pieces=3, then="ends",
    ),
    "204": Answer(b"204 None", body=b"", framing="none"),
    "302": Answer(b"302 Found", b"Location: /login\r\n", b""),
    "304": Answer(b"304 Same", body=b"", framing="none"),
    "401": Answer(b"401 No"),
    "401, by NTLM": Answer(b"401 No", b"WWW-Authenticate: NTLM\r\n"),
    "404": Answer(b"404 No"),
    "410": Answer(b"410 Gone"),
    "500": Answer(b"500 Oops"),
    "503": Answer(b"503 Busy", b"Retry-After: 1\r\n"),
}  # fmt: skip
# Not the answer, if any.
ELSE: dict[str, bytes] = {
    "ends": b"",
    "resets": b"",
    "says 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "says 103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    "says 101": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",  # nobody has asked for it
    "talks nonsense": b"nonsense\r\n\r\n",
}
WELL_SHARE = 0.25  # of what the application does


# -- who says it ------------------------------------------------------------------------------


class Unwatched(Stopwatch):
    """How long a callback takes is not asked here: to look at the clock takes longer than most."""

    def run(self, what: str, octets: int, callback: Callable[[], object]) -> None:
        """Call a callback."""
        callback()


class Visitor(Client):
    """A proper client, which sends nothing after its end."""

    def __init__(self, peer: FakePeer, number: int) -> None:
        super().__init__(peer, Unwatched(), number)
        self.half_closes = False
        self.asks_events = False

    def half_close(self) -> None:
        """Say that no request follows."""
        self.half_closes = True
        self.ends()

    @property
    def present(self) -> bool:
        """Whether the connection is open in both directions."""
        return not (self.peer.closed or self.left_early)

    def answers(self) -> list[Message]:
        """Return what it has got, the last one perhaps in part."""
        return answers_in(self.received, self.methods())

    @property
    def waits(self) -> bool:
        """Whether an answer is missing that may come."""
        answers = self.answers()
        missing = len(answers) < len(self.asked) or not all(one.complete for one in answers)
        return missing and not (self.peer.closed or (self.left_early and not self.half_closes))

    def check(self, *, may_be_evicted: bool) -> None:
        """Check the answers, and that the connection is open or was closed for a reason."""
        if self.left_early and not self.half_closes:
            return  # by a reset: nobody can say what it has got
        answers, transport = self.answers(), self.peer.transport
        last = answers[-1] if answers else None
        have = f"client {self.mark!r} has {len(answers)} answers to {len(self.asked)} requests"
        assert all(one.complete for one in answers[:-1]), have
        is_whole = last is None or last.complete
        all_came = len(answers) == len(self.asked) and is_whole
        announced = last is not None and last.fields and last.all("connection") == [b"close"]
        if not self.peer.closed:
            assert all_came, have
            assert transport.reading, f"{have}, and is not read"
            assert not (self.half_closes and answers), f"{have}, has ended, and is still there"
        elif transport.aborted:
            cut_short = last is not None and bool(last.bytes) and not is_whole
            assert all_came or announced or cut_short or self.half_closes or may_be_evicted, have
        elif self.half_closes:
            streams = last is not None and last.fields and last.all("content-type") == [EVENTS]
            # A stream ends with its client, also one that has not begun.
            assert all_came or announced or streams or self.asks_events, have
        else:
            assert announced, f"{have}, and is closed without notice"


class Worker(Upstream):
    """A connection of the application."""

    def __init__(self, peer: FakePeer) -> None:
        super().__init__(peer, Unwatched())
        self._answered = 0
        self._pieces: list[bytes] = []
        self._then = ""

    @property
    def owes(self) -> Message | None:
        """Return the request that it works on."""
        requests = self.requests()
        return requests[self._answered] if len(requests) > self._answered else None

    @property
    def busy(self) -> bool:
        """Whether it has something to say."""
        return not self.gone and bool(self._pieces or self._then or self.owes)

    def goes_on(self) -> bool:
        """Say the next piece of its answer; False if there is none."""
        if self._pieces:
            if self.peer.transport.reading:
                self.sends([self._pieces.pop(0)])
        elif self._then:
            self.does(self._then)
        else:
            return False
        return True

    def answers(self, request: Message, answer: Answer, cuts: int) -> None:
        """Begin an answer."""
        written = answer.written(request.method)
        self._answered += 1
        self._pieces = cut(written, cuts)[: answer.pieces] if answer.pieces > 1 else [written]
        if answer.then != "resets":  # else a part is enough
            self._pieces[-1] += written[sum(map(len, self._pieces)) :]
        self._then = answer.then
        self.goes_on()

    def does(self, what: str) -> None:
        """Do something else."""
        self._then = ""
        if what == "ends":
            self.ends()
        elif what == "resets":
            self.resets()
        else:
            self.sends([ELSE[what]])


class Elsewhere:
    """A disk, or another box: it has some of what was ever stored, and says so after a while."""

    def __init__(self, proxy: FakeProxy, chance: random.Random) -> None:
        self.hot: dict[bytes, Any] = {}
        self._shelves = proxy.services.store.shelves
        self._chance = chance
        self._now = 0.0
        self._asked: dict[bytes, float] = {}  # when; not again soon, or a request waits for ever
        self._stored: dict[bytes, Any] = {}
        self._jobs: list[tuple[list[bytes], Callable[[dict[bytes, Any]], None]]] = []

    def is_slow(self, _: bytes) -> bool:
        return self._chance.random() < 0.6

    def wants(self, keys: list[bytes]) -> list[bytes]:
        wanted = [key for key in keys if self._asked.get(key, -inf) < self._now - ASKED_AGAIN_S]
        self._asked.update(dict.fromkeys(wanted, self._now))
        return wanted

    def load(self, keys: list[bytes], done: Callable[[dict[bytes, Any]], None]) -> bool:
        self._jobs.append((keys, done))
        return True

    def cannot_use(self, _: bytes) -> None:
        pass

    def tick(self, now: float) -> None:
        self._now = now
        self._stored.update(self._shelves.slots)

    def work(self) -> None:
        jobs, self._jobs = self._jobs, []
        for keys, done in jobs:
            found = [key for key in keys if key in self._stored and self._chance.random() < 0.7]
            done({key: Found(self._stored[key], ()) for key in found})


# -- what happens ------------------------------------------------------------------------------


class History:
    """One proxy and all who have to do with it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        chosen = [self.chance.choice(some) for some in SETTINGS if self._is_so(SETTING_CHANCE)]
        if self._is_so(0.5):
            chosen.append(self.chance.choice(FEW_PLACES))
        self.settings = {name: value for some in chosen for name, value in some.items()}
        self.told: list[str] = [f"seed {seed}: {self.settings}"]
        # With more than one, messages wait for the end of a step (`settle`), if there are many.
        messages_max = self.chance.choice((1, 3, 16))
        self.proxy = FakeProxy(messages_max=messages_max, **PATIENT, **self.settings)
        services: Any = self.proxy.services
        self.ledger = services.access_log = Ledger(self.proxy.loop.time)
        self.elsewhere: list[Elsewhere] = []
        for name in ("disk", "far"):
            if self._is_so(0.3):
                place = Elsewhere(self.proxy, self.chance)
                setattr(services, name, place)
                self.elsewhere.append(place)
                self._tell(f"there is a {name}")
        self.visitors: list[Visitor] = []
        self._workers: list[Worker] = []

    def _is_so(self, share: float) -> bool:
        return self.chance.random() < share

    def _tell(self, what: str) -> None:
        self.told.append(what)

    @property
    def workers(self) -> list[Worker]:
        """The connections of the application that have something to say."""
        for peer in self.proxy.upstreams[len(self._workers) :]:
            self._workers.append(Worker(peer))
        return [worker for worker in self._workers if worker.busy]

    def step(self) -> None:
        """Let one thing happen, and perhaps what the loop does next."""
        if self._is_so(0.7):
            self.proxy.loop.now += 0.001
        if self._is_so(0.5):
            self.proxy.services.write_batch.try_step()
        (act,) = self.chance.choices(list(ACTS), list(ACTS.values()))
        act(self)
        if self._is_so(0.3):
            self.proxy.settle()
        self._flush()

    def _flush(self) -> None:
        for end in (*self.visitors, *self._workers):
            end.flush()

    # -- clients

    def connects(self) -> None:
        number = len(self.visitors)
        if number < CLIENTS_MAX:
            address = f"192.0.2.{number // 2}"
            self.visitors.append(Visitor(self.proxy.client(peername=(address, 50000)), number))
            self._tell(f"client {number} connects from {address}")

    def somebody(self) -> Visitor | None:
        there = [visitor for visitor in self.visitors if visitor.present]
        return self.chance.choice(there) if there else None

    def somebody_asks(self) -> None:
        if visitor := self.somebody():
            name = PAGE if self._is_so(PAGES_SHARE) else self.chance.choice(list(REQUESTS))
            self._asks(visitor, name, in_halves=self._is_so(0.3))

    def all_ask(self) -> None:
        for visitor in self.visitors:
            if visitor.present:
                self._asks(visitor, PAGE, in_halves=False)

    def _asks(self, visitor: Visitor, name: str, *, in_halves: bool) -> None:
        request = REQUESTS[name]
        path = self.chance.choice((b"/a", b"/b", b"/c", b"/only%b" % visitor.mark[1:]))
        if b"%b" in request:
            request = request.replace(b"%b", path)
        method, target, _ = request.split(b" ", 2)
        self._tell(f"client {visitor.mark!r} asks for {target!r}: {name}")
        visitor.asked.append((method, target))
        visitor.asks_events |= name == "events"
        if in_halves:
            at = self.chance.randrange(1, len(request))
            visitor.sends([request[:at]])
            self.application_goes_on()
            request = request[at:]
        visitor.sends([request])

    def somebody_leaves(self) -> None:
        if visitor := self.somebody():
            resets = self._is_so(0.5)
            self._tell(f"client {visitor.mark!r} {'resets' if resets else 'ends'}")
            (visitor.resets if resets else visitor.half_close)()

    def somebody_stops_reading(self) -> None:
        if visitor := self.somebody():
            self._tell(f"client {visitor.mark!r} stops reading")
            (visitor.blocks if self._is_so(0.5) else visitor.blocks_at_the_next_write)()

    def somebody_reads_again(self) -> None:
        blocked = [visitor for visitor in self.visitors if visitor.blocked]
        if blocked:
            visitor = self.chance.choice(blocked)
            self._tell(f"client {visitor.mark!r} reads again")
            visitor.unblocks()

    # -- the application

    def application_goes_on(self) -> None:
        workers = self.workers
        if not workers:
            return
        worker = self.chance.choice(workers)
        if worker.goes_on():
            self._tell("the application goes on with its answer")
            return
        request = worker.owes
        assert request is not None
        name = self.chance.choice([*ANSWERS, *ELSE])
        if name in ELSE:
            self._tell(f"the application {name}, asked for {request.target!r}")
            worker.does(name)
            return
        name = "well" if self._is_so(WELL_SHARE) else name
        if request.complete or name in ("well", "404", "500", "503"):
            self._tell(f"the application answers {request.target!r} {name}")
            worker.answers(request, ANSWERS[name], self.chance.randrange(1, 255))

    def application_stops_accepting(self) -> None:
        self.proxy.auto_accept = not self.proxy.auto_accept
        self._tell(f"connections are accepted: {self.proxy.auto_accept}")

    def dials_end(self) -> None:
        if self.proxy.dialled:
            name = self.chance.choice(("accept", "refuse", "time_out_dial"))
            self._tell(f"one who dials: {name}")
            getattr(self.proxy, name)()
        else:
            self._dials_again(accepted=self._is_so(0.5))

    def _dials_again(self, *, accepted: bool) -> None:
        """Do what `ConnectionPool._redial_once` does for those that are held, without its tasks."""
        pool, now = self.proxy.services.pool, self.proxy.loop.now
        for exchange, until in list(pool._held.items()):
            if accepted:
                del pool._held[exchange]
                pool.acquire(exchange, now)
            elif until <= now and pool._held.pop(exchange, None) is not None:
                exchange.connect_failed(ConnectRefused("refused"), now, held=True)

    # -- the rest

    def somebody_orders(self) -> None:
        circuit, now = self.proxy.services.breaker.circuit, self.proxy.loop.now
        what = self.chance.choice(("pause", "resume", Mode.OPEN, Mode.AUTO, Mode.CLOSED))
        self._tell(f"the operator orders {what}")
        if isinstance(what, Mode):
            circuit.set_mode(now, what)
        elif what == "pause":
            circuit.pause(now, now + self.chance.choice((1, 5)))
        else:
            resume(self.proxy.services, now)

    def threads_work(self) -> None:
        self.proxy.workers.work()
        for place in self.elsewhere:
            place.work()

    def time_passes(self) -> None:
        seconds = self.chance.choice((0.05, 0.05, 0.1, 0.3, 0.3, 1.0, 2.0))
        self._tell(f"{seconds} s pass")
        self.proxy.workers.work()
        self.proxy.advance(seconds)

    # -- what must hold

    def end(self) -> None:
        """Check that nobody waits when all is well, nor after one request more; and all leave."""
        self._all_is_well()
        for visitor in self.visitors:
            if visitor.present:
                self._asks(visitor, PAGE, in_halves=False)
                self._all_is_well()
        for visitor in self.visitors:
            visitor.resets()
        for _ in range(3):
            self.proxy.advance(0.1)
            self._application_answers_well()  # RETTER itself may have asked whether it is back
        self._nothing_is_left()

    def _all_is_well(self) -> None:
        """Let all work and read until nobody waits, and look at what each client has."""
        self._tell("all is well")
        services = self.proxy.services
        resume(services, self.proxy.loop.now)
        for visitor in self.visitors:
            vars(visitor.peer.transport).pop("write", None)  # it does not stop at the next one
            visitor.unblocks()
        self.proxy.auto_accept = True
        for _ in range(ROUNDS_MAX):
            self._application_answers_well()
            waiting = any(visitor.waits for visitor in self.visitors)
            if not (waiting or services.exchanges or services.streams):
                break
            self.proxy.advance(0.1)
        for visitor in self.visitors:
            visitor.check(may_be_evicted="connections_max" in self.settings)

    def _application_answers_well(self) -> None:
        """Let it answer all that it has been asked."""
        while self.proxy.dialled:
            self.proxy.accept()
        self._dials_again(accepted=True)
        self.threads_work()
        for worker in self.workers:
            if not worker.goes_on() and (request := worker.owes):
                worker.answers(request, WELL, 1)
        self.proxy.settle()
        self._flush()

    def _nothing_is_left(self) -> None:
        services = self.proxy.services
        services.disk = services.far = None  # these have no figures
        self.proxy.assert_at_rest()
        breaker, clients = services.breaker, services.clients
        flight, seen = breaker.circuit.flight, breaker.snapshot(self.proxy.loop.now)
        left = {
            "in flight": (seen.in_flight, seen.old_others, flight.young, flight._old),
            "a part of the limit": (breaker.circuit.limit.load, flight.counted),
            "waiting": (seen.waiting, seen.waiting_without_stored, *breaker.circuit.room.counts),
            "streams": (services.awaited_streams._on_credit, services.awaited_streams._by_client),
            "memory": (services.buffers._by_client, services.waiting._by_client),
            "to be decoded": (services.decoding._waiters,),
            "bound": (services.bound.clients,),
            "connections": (clients.connections, clients.per_address),
            "connections that end": (len(clients.half_closed), len(clients.linger_pace)),
        }
        assert not any(map(any, left.values())), left
        self.ledger.check(services.counters)


ACTS: dict[Callable[[History], None], int] = {
    History.connects: 6,
    History.somebody_asks: 27,
    History.all_ask: 3,
    History.somebody_leaves: 3,
    History.somebody_stops_reading: 2,
    History.somebody_reads_again: 4,
    History.application_goes_on: 30,
    History.application_stops_accepting: 2,
    History.dials_end: 4,
    History.somebody_orders: 1,
    History.threads_work: 3,
    History.time_passes: 15,
}


def play(seed: int) -> None:
    """Play one history; what has happened in it is told with its failure."""
    history = History(seed)
    try:
        history.connects()
        for _ in range(history.chance.randrange(5, STEPS_MAX)):
            history.step()
        history.end()
    except Exception as error:
        error.add_note("\n".join(history.told))
        raise


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_has_happened_all_are_served_when_all_is_well(part: int) -> None:
    for seed in range(part, HISTORIES, PARTS):
        play(seed)
