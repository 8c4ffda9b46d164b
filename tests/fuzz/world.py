"""One proxy, some clients, some connections to the application; what must hold, whatever they do.

- Nothing raises.
- Each byte that reaches the application is part of one well-formed request of one client.
- Each byte that a client gets was meant for it. A client that is in the right gets well-formed
  answers to what it asked, in order.
- When all fall silent, everything ends by the clock alone: each client has a reply or a close, and
  nothing is left in flight, queued, or open.
- No callback holds the loop for long (stopwatch.py).
- Each request has one line in the access log and at most one place among the counted answers.

Every "~" that a client sends becomes its mark, "~" and its number; every "~" that the application
sends becomes the mark of the client whose request it answers. So bytes that went astray show.
"""

import random
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from ipaddress import ip_network
from itertools import pairwise
from typing import Any, cast

from retter.base.counters import Counters, cells, totals
from retter.base.errors import ConnectTimeout
from retter.base.reason import STATUS_CLASSES
from retter.config.settings import Settings
from retter.proxy import turns
from retter.telemetry.access_log import AccessLog
from tests.fuzz.stopwatch import Stopwatch
from tests.fuzz.wire import Message, answers_in, requests_in
from tests.support.harness import FakePeer, FakeProxy
from tests.support.memos import set_memos

CLIENTS_MAX = 8
PIECES_MAX = 64

# Every time limit is a second or two, so that all is over soon.
_LIMITS: dict[str, Any] = {
    "upstream": "127.0.0.1:8080",
    "head_timeout_s": 1.0, "body_idle_timeout_s": 1.0, "keep_alive_s": 1.0, "write_timeout_s": 1.0,
    "upstream_timeout_s": 1.5, "upstream_body_timeout_s": 1.0, "connect_hold_s": 0.0,
    "compress": (), "pool_idle_s": 0.8, "patience_max_s": 1.0, "patience_closed_s": 0.7,
    "queue_wait_s": 0.5, "upstream_timeout_unsafe_s": 2.0, "pool_max_age_s": 0.7,
}  # fmt: skip
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"circuit": "open"},
    {"circuit": "closed", "store_memory_bytes": 0, "store_object_bytes_max": 0,
     "buffer_memory_bytes": 0},
    {"max_in_flight": 1, "limit_start": 1, "buffer_request_bytes": 4, "buffer_answer_bytes": 100},
    {"store_policy": "rfc9111", "failure_statuses": (404,), "buffer_memory_bytes": 0},
    {"request_body_bytes_max": 20, "requests_per_connection_max": 2, "target_bytes_max": 128},
    {"trusted_proxies": (ip_network("192.0.2.0/24"),), "headers": False, "head_fields_max": 8,
     "buffer_memory_bytes": 400},
    {"stream_paths": ("/s*",), "store_object_bytes_max": 10, "pool_size": 1},
    {"connections_max": 2, "connections_per_address_max": 1, "head_bytes_max": 1024},
    {"compress": ("gzip",), "max_in_flight": 2},
    {"fairness": "on", "max_in_flight": 1, "limit_start": 1, "queue_max": 3, "pipeline_max": 1},
    {"max_in_flight": 2, "write_wait_s": 0.3, "fresh_for_s": 0.2, "connect_hold_s": 0.4,
     "requests_per_connection_max": 3, "failure_text": ("until the end",)},
)  # fmt: skip
_TRUSTING = 6
_COMPRESSING = 9

# So long until whatever was going on has met its time limits one after the other; and longer than
# a stream or a tunnel may be silent.
_SILENCE_S = 15.0
_STREAMS_S = 3700.0

_MARK = re.compile(rb"~([0-9n])")
_RETRY_AFTER = re.compile(rb"(?<=\r\nRetry-After: )[0-9]+")  # spread at random
NOBODY = b"~n"
OWN_ADDRESS = b"127.0.0.1"  # of what RETTER asks for by itself (self_probe.py)


@cache
def _settings(configuration: int) -> Settings:
    return Settings(**(_LIMITS | CONFIGURATIONS[configuration]))


class FarEnd:
    """A client or a connection of the application; what it sends waits until it is read."""

    def __init__(self, peer: FakePeer, watch: Stopwatch) -> None:
        self.peer = peer
        self._watch = watch
        self.blocked = False
        self.left_early = False
        self._ended = False
        self._unread: deque[bytes | None] = deque()  # None is the end

    @property
    def gone(self) -> bool:
        return self.peer.transport.closing

    @property
    def received(self) -> bytes:
        return self.peer.transport.buffer

    def sends(self, pieces: list[bytes]) -> None:
        if self._ended:
            return  # nothing can come after the end
        for piece in pieces:
            self.flush()
            if self._unread and (last := self._unread[-1]) is not None:
                self._unread[-1] = last + piece  # what waits in a socket is read at once
            elif piece:
                self._unread.append(piece)
        self.flush()

    def ends(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._unread.append(None)
        self.flush()

    def flush(self) -> None:
        while self._unread and self.peer.transport.reading and not self.gone:
            piece = self._unread.popleft()
            if piece is None:
                self._watch.run("the end", 0, self.peer.ends)
                self._unread.clear()
            else:
                self._watch.run("octets", len(piece), partial(self.peer.sends, piece))

    def resets(self) -> None:
        self._unread.clear()
        self.left_early = True
        self._watch.run("a reset", 0, self.peer.resets)

    def blocks(self) -> None:
        if not self.gone and not self.blocked:
            self.blocked = True
            self._watch.run("a full buffer", 0, self.peer.blocks)

    def takes_some(self) -> None:
        self.peer.transport.unsent = max(0, self.peer.transport.unsent - 300)

    def unblocks(self) -> None:
        if not self.gone and self.blocked:
            self.blocked = False
            self._watch.run("an empty buffer", 0, self.peer.unblocks)

    def blocks_at_the_next_write(self) -> None:
        """As a transport does whose buffer is full: it says so inside the write."""
        transport: Any = self.peer.transport
        if "write" in vars(transport):
            return

        def write(data: bytes) -> None:
            del transport.write
            transport.write(data)
            self.blocks()

        transport.write = write


class Ledger:
    """An access log that is kept as numbers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.requests = self.unread = 0
        self.answers: Counter[tuple[str, int]] = Counter()  # by source and class of status

    def add(
        self, client: str, request: Any, identity: Any, status: int, source: str, *_: Any
    ) -> None:
        # Of a head that is refused the log may have method and target. An HTTP/1.1 request that is
        # understood has a field at least: Host.
        if request is None or (request.http11 and not request.fields):
            self.unread += 1
        else:
            self.requests += 1
        if status:
            # RFC 9110 section 15: a status that is none counts as a 5xx.
            self.answers[source, min(status // 100, STATUS_CLASSES - 1)] += 1

    def flush(self) -> None:
        pass

    def check(self, counters: Counters) -> None:
        """All requests are over: each is counted once, and as what the log tells."""
        assert (self.requests, self.unread) == (counters.requests, sum(counters.own_unread))
        counted: Counter[tuple[str, int]] = Counter()
        for source, counts in (
            ("backend", counters.forwarded_get), ("backend", counters.forwarded_other),
            ("cache", counters.stored), ("retter", counters.own_get),
            ("retter", counters.own_other), ("retter", counters.own_unread),
        ):  # fmt: skip
            for _, status_class, count in cells(counts):
                counted[source, status_class] += count
        assert counted == self.answers
        assert counters.clients_gone <= counters.requests
        assert min(totals(counters)) >= 0


class Client(FarEnd):
    """A client; in the right as long as it sends nothing but whole requests."""

    def __init__(self, peer: FakePeer, watch: Stopwatch, number: int) -> None:
        super().__init__(peer, watch)
        self.mark = b"~%d" % number
        self.asked: list[tuple[bytes, bytes]] = []  # methods and targets, while in the right
        self.in_the_right = True
        self.rest = b""  # of the request that it is sending

    def ends(self) -> None:
        self.left_early = True  # a stream ends with it; chunks show that it was cut
        super().ends()

    def methods(self) -> list[bytes]:
        """The methods by which its answers are read; that of an incomplete request is not known."""
        methods = [method for method, _ in self.asked]
        return [*methods[:-1], b""] if self.rest and methods else methods


class Upstream(FarEnd):
    """A connection of the application, which knows whose request it answers."""

    def __init__(self, peer: FakePeer, watch: Stopwatch) -> None:
        super().__init__(peer, watch)
        self.switched = False

    def requests(self) -> list[Message]:
        return requests_in(self.received, self.switched)

    def asked(self) -> Message | None:
        requests = self.requests()
        return requests[-1] if requests else None


class _NoChance:
    @staticmethod
    def uniform(least: float, _most: float) -> float:
        return least


@contextmanager
def without_chance() -> Iterator[None]:
    """Let waiting pages come again after the same time in all worlds."""
    chance = vars(turns)["random"]
    vars(turns)["random"] = _NoChance
    try:
        yield
    finally:
        vars(turns)["random"] = chance


class World:
    """The proxy and all far ends; each method is something that can happen.

    Args:
        configuration: Which of CONFIGURATIONS, modulo their number.
        memos: See tests/support/memos.py.
    """

    def __init__(self, configuration: int = 0, memos: str = "as is") -> None:
        configuration %= len(CONFIGURATIONS)
        self._trusting = configuration == _TRUSTING
        self._compressing = configuration == _COMPRESSING  # where any two octets may come to be
        self.watch = Stopwatch()
        self.proxy = FakeProxy(_settings(configuration))
        set_memos(self.proxy.proxy, memos)
        self.proxy.services.http_date = lambda: "now"
        self._ledger = Ledger(self.proxy.loop.time)
        self.proxy.services.access_log = cast("AccessLog", self._ledger)
        self.clients: list[Client] = []
        self._upstreams: list[Upstream] = []

    # -- what can happen --------------------------------------------------------------------------

    def connects(self) -> None:
        number = len(self.clients)
        if number < CLIENTS_MAX:
            peer = self.proxy.client(peername=(f"192.0.2.{number}", 50000))
            self.clients.append(Client(peer, self.watch, number))

    def client(self, number: int) -> Client:
        if not self.clients:
            self.connects()
        return self.clients[number % len(self.clients)]

    @property
    def upstreams(self) -> list[Upstream]:
        for peer in self.proxy.upstreams[len(self._upstreams) :]:
            self._upstreams.append(Upstream(peer, self.watch))
        return self._upstreams

    def upstream(self, number: int) -> Upstream | None:
        """One of those open; 0 is the one opened last."""
        there = [upstream for upstream in self.upstreams if not upstream.gone]
        return there[-1 - number % len(there)] if there else None

    def client_sends(self, number: int, data: bytes, cuts: int = 0) -> None:
        """Anything at all."""
        client = self.client(number)
        if data:
            client.in_the_right = False
            data = client.rest + data.replace(b"~", client.mark)
            client.rest = b""
            client.sends(cut(data, cuts))

    def client_asks(self, number: int, request: bytes, cuts: int = 0, keeps: int = 0) -> None:
        """A proper request, of which the last octets may be kept for the next time."""
        client = self.client(number)
        request = request.replace(b"~", client.mark)
        if client.in_the_right:
            method, target, _ = request.split(b" ", 2)
            client.asked.append((method, target))
        data = client.rest + request
        kept = keeps % len(data)
        client.rest = data[len(data) - kept :]
        client.sends(cut(data[: len(data) - kept], cuts))

    def upstream_sends(self, number: int, data: bytes, cuts: int = 0) -> None:
        """Anything at all."""
        if upstream := self.upstream(number):
            data = data.replace(b"X-For", b"X-Not-For").replace(b"~", self._mark_for(upstream))
            self._upstream_sends(upstream, data, cuts)

    def upstream_answers(self, number: int, answer: bytes, cuts: int = 0) -> None:
        """A proper answer to what it has got; nothing if that is nothing."""
        upstream = self.upstream(number)
        if upstream and (request := upstream.asked()):
            head, end, body = answer.partition(b"\r\n\r\n")
            if request.method == b"HEAD":
                body = b""
            answer = head + b"\r\nX-For: " + request.target + end + body
            self._upstream_sends(upstream, answer.replace(b"~~", self._mark_for(upstream)), cuts)

    def _upstream_sends(self, upstream: Upstream, data: bytes, cuts: int) -> None:
        upstream.switched = upstream.switched or b" 101" in data
        upstream.sends(cut(data, cuts))

    def _mark_for(self, upstream: Upstream) -> bytes:
        request = upstream.asked()
        mark = _MARK.search(request.target) if request else None
        return mark[0] if mark else NOBODY

    def passes(self, seconds: float, step_s: float = 0.05) -> None:
        """Let the time pass; a step may be a long one."""
        loop, proxy = self.proxy.loop, self.proxy.proxy
        end = loop.now + seconds
        while loop.now < end - 1e-9:
            loop.now = min(end, loop.now + step_s)
            self.proxy.workers.work()
            self.watch.run("a tick", 0, partial(proxy.ticker.tick, loop.now))
            self.settle()
            self.flush()

    def settle(self) -> None:
        """Let the loop's next round come."""
        self.watch.run("what was to come soon", 0, self.proxy.settle)

    def dial(self, what: int) -> None:
        """Accept, refuse or ignore the oldest attempt to connect; or change what happens to all."""
        if what % 4 == 3:
            self.proxy.auto_accept = not self.proxy.auto_accept
        elif self.proxy.dialled:
            (self.proxy.accept, self.proxy.refuse, self.proxy.time_out_dial)[what % 4]()

    def flush(self) -> None:
        """Read on wherever RETTER reads on."""
        for end in (*self.clients, *self.upstreams):
            end.flush()

    # -- what must hold ---------------------------------------------------------------------------

    def check(self) -> None:
        """Check the invariants."""
        for upstream in self.upstreams:
            for request in upstream.requests():
                self._check_request(request)
        for client in self.clients:
            strangers = {mark[0] for mark in _MARK.finditer(client.received)}
            strangers -= {client.mark, NOBODY}
            if not self._compressing:
                assert not strangers, f"{client.mark!r} got what was for {strangers}"
            if client.in_the_right:
                self._check_answers(client)

    def _check_request(self, request: Message) -> None:
        marks = {mark[0] for mark in _MARK.finditer(request.bytes)}
        assert len(marks) <= 1, f"mixed: {request.bytes!r}"
        address = request.all("x-real-ip")[0]
        if address == OWN_ADDRESS:  # to see whether the application works again
            assert request.method == b"GET" and not request.all("cookie"), request.bytes
            return
        assert not marks or self._trusting or address == b"192.0.2." + marks.pop()[1:]

    def _check_answers(self, client: Client) -> None:
        answers = answers_in(client.received, client.methods())
        for answer, (_, target) in zip(answers, client.asked, strict=False):
            if answer.fields is not None and (told := answer.all("x-for")):
                assert told == [target], f"the answer to {told} for {target!r}"
        for answer in answers[:-1]:
            assert answer.complete

    def end(self) -> None:
        """All fall silent: see to it that everything ends by itself."""
        self.check()
        self.proxy.auto_accept = False
        for _ in range(3):
            self._fall_silent()
            if self._going_on():
                self.passes(_STREAMS_S, _STREAMS_S / 40)
        self.check()
        for client in self.clients:
            assert client.gone, f"{client.mark!r} has neither a reply nor a close"
            if client.in_the_right and not (client.left_early or client.peer.transport.aborted):
                answers = answers_in(client.received, client.methods())
                assert all(answer.complete for answer in answers), "a cut answer must look like one"
        stats = self.proxy.proxy.stats()
        breaker, upstream = stats["breaker"], stats["upstream"]
        nothing = (
            stats["connections"]["open"], stats["exchanges"], stats["streams"], upstream["open"],
            upstream["idle"], upstream["held"], breaker.in_flight, breaker.old_others,
            breaker.waiting, breaker.waiting_without_stored, stats["buffers"]["bytes"],
        )  # fmt: skip
        assert not any(nothing), stats
        self._ledger.check(self.proxy.services.counters)

    def _fall_silent(self) -> None:
        until = self.proxy.loop.now + _SILENCE_S
        while self.proxy.loop.now < until and self._going_on():
            while self.proxy.dialled:
                self.proxy.refuse(ConnectTimeout("not accepted"))
            self._redial_in_vain()
            self.passes(0.5, 0.5)

    def _redial_in_vain(self) -> None:
        """Do what `ConnectionPool._redial_once` does for those that are held, without its task."""
        pool, now = self.proxy.services.pool, self.proxy.loop.now
        for exchange, until in list(pool._held.items()):
            if until <= now and pool.unhold(exchange):
                exchange.connect_failed(ConnectTimeout("not accepted"), now, held=True)

    def _going_on(self) -> bool:
        services = self.proxy.services
        return bool(
            services.clients.connections
            or services.exchanges
            or services.streams
            or services.pool.open
        )

    def transcript(self) -> Any:
        """All that has been written and decided; the same for the same steps."""
        instance = self.proxy.services.peers.instance
        ends = [
            (
                _RETRY_AFTER.sub(b"soon", end.received.replace(instance, b"me")),
                end.peer.closed,
                end.peer.transport.aborted,
                end.peer.transport.reading,
            )
            for end in (*self.clients, *self.upstreams)
        ]
        stats = self.proxy.proxy.stats()
        del stats["memo"]
        return ends, stats


def cut(data: bytes, cuts: int) -> list[bytes]:
    """Cut data: 0 not at all, 255 octet by octet as far as that is quick, else at random."""
    if not cuts or len(data) < 2:
        return [data]
    if cuts == 255:
        size = len(data) // PIECES_MAX + 1
        return [data[at : at + size] for at in range(0, len(data), size)]
    places = random.Random(cuts).sample(range(1, len(data)), min(cuts % 5 + 1, len(data) - 1))
    places = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(places)]
