"""What the connections of one process share, and what happens on the clock.

One Proxy stands for one application: its breaker, store, pool, memos, counters. It binds nothing
and listens to nothing; running.py does that.
"""

import asyncio
import os
import time
from collections.abc import Callable
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from typing import Any, Protocol

from retter.base.buffers import BufferBudget
from retter.base.client_id import ClientIds
from retter.base.counters import Counters, by_reason
from retter.base.wildcard import name_matcher
from retter.breaker import (
    BreakerSettings,
    CircuitBreaker,
    Kind,
    Mode,
    Permit,
    State,
    Transition,
    route_of,
)
from retter.compression.compressors import decodable
from retter.compression.decoding import Decoding
from retter.compression.pipeline import Compression, ThreadWorker
from retter.config.settings import ConfigError, Settings
from retter.config.units import parse_listen, parse_upstream
from retter.http.content_coding import Accepted, Eligibility, Negotiator
from retter.http.dates import format_http_date
from retter.http.forwarding import ForwardingFields, Trust
from retter.http.memo import HeadMemo
from retter.http.message import RequestHead, ResponseHead
from retter.http.request_parser import RequestParser
from retter.http.response_parser import ResponseParser
from retter.net.certificates import upstream_context
from retter.net.supervision import report
from retter.proxy.awaited_streams import AwaitedStreams, asks_for_events
from retter.proxy.bound_connections import BoundConnections, names_binding_scheme
from retter.proxy.deadline_wheel import DeadlineWheel
from retter.proxy.eviction import LongestWaiting
from retter.proxy.exchange import Exchange
from retter.proxy.goodness import Goodness
from retter.proxy.half_close import HalfClosed
from retter.proxy.keeping import Keeper
from retter.proxy.lingering import LingerPace
from retter.proxy.pool import ConnectionPool
from retter.proxy.relay import HOLD_S
from retter.proxy.request_body import RequestBody
from retter.proxy.responses import AnswerWriter
from retter.proxy.sampling import upstream_connection
from retter.proxy.self_probe import SelfProbe
from retter.proxy.tunnel import Tunnel
from retter.proxy.withdrawals import Withdrawals
from retter.store.hints import Hints
from retter.store.lineage import Lineages
from retter.store.owner import OwnerClass, tells_more_apart
from retter.store.policy import Identity, OwnerRules, StorePolicy, identify
from retter.store.sessions import SessionsSeen
from retter.store.store import ResponseStore, StoreRules
from retter.telemetry.access_log import AccessLog
from retter.telemetry.line_writer import CLOSE_S

TICK_S = 0.05  # the breaker's; also how late a time limit of an exchange may be noticed
LATE_S = 0.2  # a tick that comes later than that says that the process was held up
DRAIN_IDLE_S = 1.0  # no request for so long: none is on its way
SECOND_TICKS = 20  # event streams and tunnels are silent for long: looked at once a second

# When there is no room, those of an address with more than this share of all connections give way
# first: one client that takes all it can get drives itself out and nobody else. An office or a
# mobile network behind one address stays below; a proxy that is trusted speaks for many.
ADDRESS_SHARE = 1 / 8

# Ten thousand slow heads whose time is over together would take the loop half a second. So few are
# ended at once (half a millisecond), and soon the next few: 1,600 a second, with visitors between.
EXPIRED_AT_ONCE_MAX = 8
EXPIRE_AGAIN_S = 0.005

# All memos together take 8 MiB at most: these, 2 MiB of forms and cookies (templates.py, owner.py),
# and 2 MiB of what has come once (memo.py).
REQUEST_MEMO_BYTES_MAX = 3 * 1024 * 1024
RESPONSE_MEMO_BYTES_MAX = 1024 * 1024


class ParsedRequest:
    """All that follows from a request's head alone; shared by requests with the same bytes."""

    __slots__ = ("accepted", "asks_events", "binds", "client", "head", "identity", "kind", "stream")

    def __init__(
        self,
        head: RequestHead,
        identity: Identity,
        kind: Kind,
        stream: bool = False,
        asks_events: bool = False,
    ) -> None:
        self.head = head
        self.identity = identity
        self.kind = kind
        self.stream = stream  # takes long on purpose (`--stream-paths`)
        self.asks_events = asks_events  # for an event stream and nothing else
        self.binds = False  # authenticates its connection (bound_connections.py)
        self.accepted: Accepted | None = None  # found out with the first answer that gains
        # The number of the client that a trusted peer tells, 0 if it tells none; -1: not read yet.
        self.client = -1


# Paths whose route is remembered: a page is asked for again and again, with ever new queries. A
# miss costs 1 us more than none.
ROUTES_REMEMBERED_MAX = 4096
ROUTE_PATH_BYTES_MAX = 256  # of a path that is remembered: 1 MB of them, not 64


def _make_route_of(patterns: tuple[bytes, ...], limit_head: bool) -> Callable[[RequestHead], bytes]:
    """Return a function that names routes: the operator's own first, then by segments."""

    def method_of(request: RequestHead) -> bytes:
        return b"GET" if limit_head and request.method == b"HEAD" else request.method

    if not patterns:
        return lambda request: route_of(method_of(request), request.target)
    rules = [(pattern, name_matcher((pattern,))) for pattern in patterns]

    @lru_cache(ROUTES_REMEMBERED_MAX)
    def route_of_path(method: bytes, path: bytes) -> bytes:
        for pattern, matches in rules:
            if matches(path):
                return (b"GET " if method == b"GET" else b"OTHER ") + pattern
        return route_of(method, path)

    def route(request: RequestHead) -> bytes:
        path = _path(request)
        if len(path) > ROUTE_PATH_BYTES_MAX:
            return route_of_path.__wrapped__(method_of(request), path)
        return route_of_path(method_of(request), path)

    return route


def _path(request: RequestHead) -> bytes:
    return request.target.partition(b"?")[0]


def _encoded(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple([name.encode("latin-1") for name in names])


class ClientConnection(Protocol):
    """What all client connections have, whatever they wait for."""

    peer: str  # whom it counts for; "" for nobody: a Unix socket, or not yet known
    deadline: float
    bucket: int  # the wheel's

    @property
    def idle(self) -> bool: ...
    def waits_since(self) -> float: ...
    def on_deadline(self, now: float) -> None: ...
    def give_up(self, now: float) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


def _request_memos(settings: Settings) -> "dict[tuple[bool, bytes], HeadMemo[ParsedRequest]]":
    """Return a memo for each kind of peer: trusted or not, over TLS or not.

    What a head means depends on that. Those that can have a peer share the bytes.
    """
    listeners = [parse_listen(text) for text in settings.listen]
    trust = [False, True] if settings.trusted_proxies else [False]
    protos = {b"https" if listener.tls else b"http" for listener in listeners}
    bytes_max = REQUEST_MEMO_BYTES_MAX // max(1, len(trust) * len(protos))
    return {
        (trusted, proto): HeadMemo(bytes_max if trusted in trust and proto in protos else 0)
        for trusted in (False, True)
        for proto in (b"http", b"https")
    }


def _error_page(settings: Settings) -> bytes | None:
    if not settings.error_page:
        return None
    try:
        return Path(settings.error_page).read_bytes()
    except OSError as error:
        raise ConfigError(f"error_page: {settings.error_page}: {error.strerror}") from None


def breaker_settings(settings: Settings) -> BreakerSettings:
    """Pick the breaker's settings."""
    return BreakerSettings(
        mode=Mode(settings.circuit),
        max_in_flight=settings.max_in_flight,
        limit_start=settings.limit_start,
        patience_min_s=settings.patience_min_s,
        patience_max_s=settings.patience_max_s,
        patience_closed_s=settings.patience_closed_s,
        queue_wait_s=settings.queue_wait_s,
        queue_max=settings.queue_max,
        write_wait_s=settings.write_wait_s,
        retry_after_s=settings.retry_after_s,
        failure_ratio=settings.failure_ratio,
        failure_volume=settings.failure_volume,
        open_min_s=settings.open_min_s,
        open_max_s=settings.open_max_s,
        fresh_for_s=settings.fresh_for_s,
    )


class Proxy:
    """The shared half of a running RETTER.

    Args:
        on_transition: Told of every change of the circuit's state.
        pool_class: Makes the upstream connections.
        clock: Seconds for the access log: the same as the loop's, but finer.
    """

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        on_transition: Callable[[Transition], None] | None = None,
        pool_class: type[ConnectionPool] = ConnectionPool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        now = loop.time()
        self._clock = clock
        self.settings = settings
        self.loop = loop
        self.started_at = now
        self.draining = False
        self.counters = Counters()
        # Told of every change of the circuit's state, and once a second what time it is.
        self.on_transition = [on_transition] if on_transition is not None else []
        self.on_second: list[Callable[[float], None]] = []
        self.loop_lag_s = 0.0  # worst since somebody asked last
        self.store_policy = StorePolicy(settings.store_policy)
        self._secret = os.urandom(32)  # of this process: no key means anything to the next one
        self._client_ids = ClientIds(os.urandom(32))
        self._instance = os.urandom(6).hex().encode()
        self._memos = _request_memos(settings)
        self._response_memo: HeadMemo[ResponseHead] = HeadMemo(RESPONSE_MEMO_BYTES_MAX)
        self._response_parser = ResponseParser()  # the same for all connections, old and new
        self._sessions = SessionsSeen()
        self._lineages: Lineages | None = None  # as long as the store, too
        self.goodness = Goodness()
        self._derive(settings, _error_page(settings))
        self.breaker = CircuitBreaker(breaker_settings(settings), now, self._state_changed)
        self.answers.set_state(self.breaker.state)
        self.store = ResponseStore(self._store_rules(settings))
        self.withdrawals = Withdrawals(self.store, now)
        self.awaited_streams = AwaitedStreams()
        worker = ThreadWorker(loop)
        self.decoding = Decoding(self.store, worker)
        self.hints = Hints()
        self.keeper = Keeper(
            self.store, self.owner_rules, self._forget_heads, self.hints, worker, loop.time
        )
        self.compression = Compression(self.store, worker, loop.time)
        self._configure_compression(settings)
        self.pool = self._make_pool(settings, pool_class)
        self.pool.make_room = self.make_room
        self.bound = BoundConnections()
        self.buffers = BufferBudget(settings.buffer_memory_bytes)
        self.access_log = self._open_access_log(settings, None)
        self._per_address: dict[str, int] = {}
        self.exchanges: dict[Exchange, None] = {}  # in flight, in start order
        self.streams: dict[Exchange | Tunnel, None] = {}  # event streams and tunnels
        self.connections: set[ClientConnection] = set()
        self.descriptors_max = 0  # for clients and the application together; 0: not known
        self._longest_waiting: LongestWaiting[ClientConnection] = LongestWaiting()
        self.half_closed = HalfClosed()
        self.self_probe = SelfProbe(self)
        self.linger_pace = LingerPace()
        self.wheel: DeadlineWheel[ClientConnection] = DeadlineWheel(now)
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._date = ""
        self._date_second = -1

    # -- making the parts -----------------------------------------------------------------------

    def _derive(self, settings: Settings, error_page: bytes | None) -> None:
        """Make what follows from the settings alone and holds nothing of its own."""
        self.settings = settings
        self.failure_statuses = frozenset(settings.failure_statuses)
        # Whether a plain answer (ResponseHead.plain) may be a failure, or may not be stored.
        self.judges_plain_answers = (
            any(status < 400 for status in settings.failure_statuses)
            or settings.store_policy != StorePolicy.ALL
        )
        self.goodness.configure([text.encode() for text in settings.failure_texts])
        self.answers = AnswerWriter(headers=settings.headers, error_page=error_page)
        self._route_of = _make_route_of(_encoded(settings.routes), settings.limit_head)
        self._is_stream = name_matcher(_encoded(settings.stream_paths))
        self.owner_rules = OwnerRules(
            secret=self._secret,
            session_cookies=_encoded(settings.session_cookies),
            ignore_cookies=_encoded(settings.ignore_cookies),
            neutral_headers=_encoded(settings.neutral_headers),
            ignore_query=settings.ignore_query,
            ignore_host=settings.ignore_host,
            ignore_params=_encoded(settings.ignore_params),
            anonymous_fallback=settings.anonymous_fallback,
            never_store=_encoded(settings.never_store),
            vary_on=_encoded(settings.vary_on),
            seen=self._sessions,
            known_lineages=self._lineages,
            rolling_cookies=_encoded(settings.rolling_cookies),
        )
        self._lineages = self.owner_rules.lineages
        networks = [n for n in settings.trusted_proxies if not isinstance(n, str)]
        self._trust = Trust(networks, "unix:" in settings.trusted_proxies)
        parser = partial(
            RequestParser,
            fields_max=settings.head_fields_max,
            target_bytes_max=settings.target_bytes_max,
            instance=self._instance,
            authority=parse_upstream(settings.upstream).authority,
            tells=lambda name: self.owner_rules.field_kinds[name] is not None,
            shaper=self.owner_rules.shaper,
            decodable=decodable(),
        )
        self._parsers = {trusted: parser(trusted=trusted) for trusted in (False, True)}
        eligibility: Eligibility | None = None
        if settings.codings:
            is_type = name_matcher(_encoded(settings.compress_types))
            eligibility = Eligibility(is_type, settings.compress_min_bytes)
        self._response_parser.configure(settings.head_fields_max, eligibility)

    def _configure_compression(self, settings: Settings) -> None:
        excluded = name_matcher(_encoded(settings.compress_exclude))
        self.compression.configure(
            Negotiator(_encoded(settings.codings), excluded),
            settings.compress_level,
            settings.compress_min_bytes,
        )

    def _store_rules(self, settings: Settings) -> StoreRules:
        return StoreRules(
            secret=self._secret,
            bytes_max=settings.store_memory_bytes,
            max_stale_s=settings.max_stale_s,
            policy=self.store_policy,
        )

    def _open_access_log(self, settings: Settings, before: AccessLog | None) -> AccessLog | None:
        if not settings.access_log:
            return None
        try:
            return AccessLog(
                settings.access_log,
                self.owner_rules,
                self.counters,
                before,
                combined=settings.access_log_format == "combined",
                share=settings.access_log_sample,
                clock=self._clock,
            )
        except OSError as error:
            raise ConfigError(f"access_log: {settings.access_log}: {error.strerror}") from None

    def _make_pool(self, settings: Settings, pool_class: type[ConnectionPool]) -> ConnectionPool:
        address = parse_upstream(settings.upstream)
        return pool_class(
            address,
            lambda pool: upstream_connection(
                self.counters, pool, self.loop, self._response_memo, self._response_parser,
                self.settings.head_bytes_max, self.http_date,
            ),
            self.loop,
            idle_max=settings.pool_size,
            idle_s=settings.pool_idle_s,
            max_age_s=settings.pool_max_age_s or inf,
            connect_timeout_s=settings.connect_timeout_s,
            tls=upstream_context(settings) if address.tls else None,
            tls_name=settings.upstream_name,
        )  # fmt: skip

    def apply(self, settings: Settings) -> None:
        """Take over new settings (those that reload.py allows to change), and open files again.

        What has begun goes on with what it has; new requests and connections get the new.

        Raises:
            ConfigError: A file cannot be read or written; then nothing has changed.
        """
        error_page = _error_page(settings)
        tls = upstream_context(settings) if parse_upstream(settings.upstream).tls else None
        access_log = self._open_access_log(settings, self.access_log)
        now, before, rules = self.loop.time(), self.settings, self.owner_rules
        self._derive(settings, error_page)
        if tells_more_apart(self.owner_rules, rules):
            # What is stored for everyone may be what one visitor alone should see now.
            self.store.empty(now)
            for permit in self.breaker.all_waiting():
                self._holder(permit).keep_from_store()
        self.answers.set_state(self.breaker.state)
        self.keeper.configure(self.owner_rules)
        self._forget_heads()  # what they mean may have changed
        for kind, memo in _request_memos(settings).items():
            self._memos[kind].resize(memo.bytes_max)
        self._response_memo.clear()
        self.breaker.reconfigure(breaker_settings(settings))
        if settings.circuit != before.circuit:
            self.breaker.set_mode(now, Mode(settings.circuit))
        self.store.reconfigure(self._store_rules(settings))
        self._configure_compression(settings)
        self.buffers.bytes_max = settings.buffer_memory_bytes
        self.pool.reconfigure(
            idle_max=settings.pool_size,
            idle_s=settings.pool_idle_s,
            max_age_s=settings.pool_max_age_s or inf,
            connect_timeout_s=settings.connect_timeout_s,
            tls=tls,
            tls_name=settings.upstream_name,
        )
        if access_log is not None:
            access_log.rules = self.owner_rules
        if self.access_log is not None:
            self.access_log.close(access_log)
        self.access_log = access_log

    # -- for the connections --------------------------------------------------------------------

    def accept(self, connection: ClientConnection) -> bool:
        """Count a new client connection in; False if there are too many."""
        settings, counters = self.settings, self.counters
        counters.connections += 1
        address_max = settings.connections_per_address_max
        if address_max and (not connection.peer or self._trust.trusts(connection.peer)):
            address_max = 0  # a proxy in front speaks for many
        # Counted without a limit too: one may be set, or the trust taken back, while it is open.
        counts = self._per_address
        here = counts.get(connection.peer, 0)
        if (address_max and here >= address_max) or (self._full() and not self.make_room()):
            counters.connections_refused += 1
            return False
        # Read again: room may have been made by one of the same address.
        counts[connection.peer] = counts.get(connection.peer, 0) + 1
        self.connections.add(connection)
        return True

    def _full(self) -> bool:
        clients = len(self.connections)
        if clients >= self.settings.connections_max:
            return True
        upstreams = self.pool.open + self.pool.dialling
        return bool(self.descriptors_max) and clients + upstreams >= self.descriptors_max

    def make_room(self) -> bool:
        """Close the client connection that has waited longest for its client, if there is one."""
        now = self.loop.time()
        connection = self._longest_waiting.take(self.connections, now, self._crowd)
        while connection is not None and connection not in self.connections:
            connection = self._longest_waiting.take(self.connections, now, self._crowd)  # ended
        if connection is None:
            return False
        self.counters.connections_evicted += 1
        self.lost(connection)  # its place is free now; the loop tells it in its next round
        connection.give_up(now)
        return True

    def _crowd(self) -> frozenset[str]:
        """Return the addresses that have more connections than their share."""
        share = len(self.connections) * ADDRESS_SHARE
        return frozenset(
            [
                peer
                for peer, count in self._per_address.items()
                if count > share and peer and not self._trust.trusts(peer)
            ]
        )

    def withdraw(self, connection: ClientConnection) -> None:
        """Take a connection back that is accepted again as something else."""
        self.counters.connections -= 1
        self.lost(connection)

    def lost(self, connection: ClientConnection) -> None:
        """A client connection is closed."""
        if self.bound.clients:
            self.bound.lost(connection)
        if connection in self.connections:
            self.connections.remove(connection)
            here = self._per_address.get(connection.peer, 0)
            if here > 1:
                self._per_address[connection.peer] = here - 1
            else:
                self._per_address.pop(connection.peer, None)
        self.wheel.forget(connection)
        self.half_closed.forget(connection)
        self.linger_pace.forget(connection)

    def forwarding_fields(self, peer: str, proto: bytes) -> ForwardingFields:
        """Return what the application is told about a client connection."""
        number = self._client_ids.of_address(peer)
        return ForwardingFields(peer, proto, self._instance, self._trust, number)

    def client_of(self, forwarding: ForwardingFields, parsed: ParsedRequest) -> int:
        """Return the number of the client that a request counts for; 0 if it is not known."""
        if not forwarding.trusted:
            return forwarding.number
        if parsed.client < 0:
            parsed.client = self._client_ids.of_address(forwarding.told_client(parsed.head))
        return parsed.client or forwarding.number

    def _state_changed(self, transition: Transition) -> None:
        self.answers.set_state(transition.after)
        for told in self.on_transition:
            told(transition)

    def request_memo(self, trusted: bool, proto: bytes = b"http") -> HeadMemo[ParsedRequest]:
        """Return the memo of request heads for trusted or for other peers."""
        return self._memos[trusted, proto]

    def parse(
        self,
        head_bytes: bytes,
        trusted: bool,
        memo: HeadMemo[ParsedRequest],
        proto: bytes = b"http",
        forwarding: ForwardingFields | None = None,
    ) -> ParsedRequest:
        """Parse a request head that the memo does not know, and remember it.

        Args:
            forwarding: Tells who the client is, to see sessions that many clients share.

        Raises:
            DownstreamError: With the status that the client is to get.
        """
        head = self._parsers[trusted].parse(head_bytes)
        like_get = head.method == b"GET" or (head.method == b"HEAD" and self.settings.limit_head)
        kind = Kind.GET if like_get and not head.upgrade else Kind.OTHER
        identity = identify(head, self.owner_rules, self._route_of)
        if identity.session and forwarding is not None:
            client = forwarding.client_of(head)
            if self.owner_rules.seen.used_by(identity.owner, client):
                self._forget_heads()
                identity = identify(head, self.owner_rules, self._route_of)
        if like_get:
            identity.lookup = identity.stands_in
        stream = bool(self.settings.stream_paths and self._is_stream(_path(head)))
        asks_events = not stream and not head.upgrade and asks_for_events(head)
        if stream:
            kind = Kind.OTHER
        if stream or asks_events:
            identity.keep_out()  # it is nobody else's yet
        if proto == b"https":
            # The application may answer http with a redirect to https, which would send a client
            # of https round in circles.
            identity.shape += b"https"
        parsed = ParsedRequest(head, identity, kind, stream, asks_events)
        if identity.owner_class is OwnerClass.CREDENTIAL:
            parsed.binds = names_binding_scheme(head.telling, b"authorization")
            if parsed.binds:
                identity.keep_out()
        memo.offer(head_bytes, parsed)
        return parsed

    def _forget_heads(self) -> None:
        self.owner_rules.cookie_owners.clear()
        for memo in self._memos.values():  # the connections look into these very memos
            memo.clear()

    def request_body(self, parsed: ParsedRequest) -> RequestBody:
        """Make the reader of a request's body; on `--stream-paths` it keeps and waits for none."""
        settings, log = self.settings, self.access_log
        return RequestBody(
            parsed,
            settings.request_body_bytes_max,
            settings.body_idle_timeout_s,
            0 if parsed.stream else settings.body_min_rate_bytes,
            self.buffers,
            0 if parsed.stream else settings.buffer_request_bytes,
            log.clock() if log is not None else 0.0,
        )

    def http_date(self) -> str:
        """Return the wall-clock time as in a Date field (RFC 9110 section 5.6.7)."""
        second = int(time.time())
        if second != self._date_second:
            # The standard library's formatdate would bring 0.7 MB of e-mail with it.
            self._date, self._date_second = format_http_date(time.gmtime(second)), second
        return self._date

    # -- on the clock ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the clock."""
        self._timer = self.loop.call_later(TICK_S, self._on_timer)

    def _on_timer(self) -> None:
        assert self._timer is not None, "it is what has called us"
        now = self.loop.time()
        late_s = now - self._timer.when()
        self.loop_lag_s = max(self.loop_lag_s, late_s)
        self.compression.note_lag(late_s)
        self._timer = self.loop.call_later(TICK_S, self._on_timer)
        if late_s < LATE_S:
            self._on_tick(now)
        else:
            # The process could not run for a while, and uvloop looks at the clock before it looks
            # at its sockets: what has come meanwhile is read before anybody's time is over.
            self.loop.call_soon(self.loop.call_soon, self._after_reading)

    def _after_reading(self) -> None:
        if self._timer is not None:  # else it has been closed
            self._on_tick(self.loop.time())

    def _on_tick(self, now: float) -> None:
        self.tick(now)
        if self._expiry is None and self.wheel.behind(now):
            self._expiry = self.loop.call_later(EXPIRE_AGAIN_S, self._go_on_expiring)

    def tick(self, now: float) -> None:
        """Let the breaker's clock and all time limits run."""
        if self.compression.unflushed:
            self.compression.flush()
        for permit in self.breaker.tick(now):
            exchange = self._holder(permit)
            try:
                exchange.overdue(permit.reason, now)
            except Exception as error:  # noqa: BLE001 - the others are overdue as well
                self._end_broken(exchange, error, now)
        if self.half_closed:
            self.half_closed.look(now)
        self.linger_pace.tick()
        self.start_waiting(now)
        for exchange in list(self.exchanges):
            if now - exchange.started_at < HOLD_S:
                break
            try:
                exchange.sweep(now)
            except Exception as error:  # noqa: BLE001 - the others have time limits as well
                self._end_broken(exchange, error, now)
        self.expire(now)
        self._ticks += 1
        if self._ticks % SECOND_TICKS == 0:
            for stream in list(self.streams):
                stream.sweep(now)
            self.withdrawals.advance(now, self.breaker.state)
            if self.bound.clients:
                self.bound.sweep(now)
            for told in self.on_second:
                told(now)
        if self.breaker.state is not State.CLOSED:
            self.self_probe.tick(now)
        self.pool.sweep(now)
        self.store.take_rubbish_out()
        if self.access_log is not None:
            self.access_log.flush()

    def expire(self, now: float) -> bool:
        """End some of the client connections whose time is over; whether there may be more."""
        for connection in self.wheel.due(now, EXPIRED_AT_ONCE_MAX):
            try:
                connection.on_deadline(now)
            except Exception as error:  # noqa: BLE001 - the others' time is over as well
                report(self.loop, "a client connection could not be ended in time", error)
                connection.abort()
        return self.wheel.behind(now)

    def _go_on_expiring(self) -> None:
        self._expiry = None
        if self.expire(self.loop.time()):
            self._expiry = self.loop.call_later(EXPIRE_AGAIN_S, self._go_on_expiring)

    def free_memory(self) -> None:
        """Memory has run out: drop what can be done without, and keep less from now on."""
        self.counters.memory_errors += 1
        self._forget_heads()
        self._response_memo.clear()
        self.counters.memory_dropped += self.store.give_up()

    def keep_time(self) -> None:
        """Start the clock again if there was no memory for its next tick."""
        if self._timer is not None and self._timer.when() <= self.loop.time():
            self._timer.cancel()  # it may be only late
            self.start()

    def start_waiting(self, now: float) -> None:
        """Send those on their way for whom a place has become free."""
        if self.breaker.waiting:
            for permit in self.breaker.take_ready(now):
                exchange = self._holder(permit)
                try:
                    exchange.forward(now)
                except Exception as error:  # noqa: BLE001 - it is the others' turn as well
                    self._end_broken(exchange, error, now)

    def _end_broken(self, exchange: Exchange, error: Exception, now: float) -> None:
        """End an exchange that a fault of ours has met, so that neither client nor place waits."""
        report(self.loop, "an exchange has failed", error)
        exchange.broken(now)

    def pause(self, now: float, until: float) -> None:
        """Send the application nothing until then; see `CircuitBreaker.pause`."""
        self.breaker.pause(now, until)

    def resume(self, now: float) -> int:
        """End a pause at once; return how many requests it has held."""
        held = self.breaker.resume(now)
        self.start_waiting(now)
        return held

    @staticmethod
    def _holder(permit: Permit) -> Exchange:
        assert isinstance(permit.holder, Exchange), "the exchange that holds it"
        return permit.holder

    # -- the end, and looking in ----------------------------------------------------------------

    def drain(self, now: float) -> None:
        """Close what has been idle for a while; all else closes after its next answer.

        A client that has just had its answer may be about to ask again, and one that has just
        connected is: closed now, it would get nothing. Call it again until all are gone.

        Args:
            now: What has come until then must have been read. Else a process that was held up
                would close on requests that wait in its sockets.
        """
        self.draining = True  # from now on at the latest
        before = now - DRAIN_IDLE_S
        for connection in list(self.connections):
            if connection.idle and connection.waits_since() <= before:
                connection.close()

    def close(self) -> None:
        """Close everything at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.compression.close()
        if self._expiry is not None:
            self._expiry.cancel()
        now = self.loop.time()
        self.pool.close()
        for connection in list(self.connections):
            connection.give_up(now)
        for open_still in [*self.exchanges, *self.streams]:
            open_still.shut_down(now)
        if self.access_log is not None:
            self.access_log.close(wait_s=CLOSE_S)

    def memo_lookups(self) -> dict[str, tuple[int, int]]:
        """Return hits and misses of the memos of heads, by kind.

        Most hits are worked out: counting them would be a count more for every request. The
        numbers never fall.
        """
        counters = self.counters
        memos = self._memos.values()
        misses = sum([memo.misses for memo in memos])
        # What could not be read has mostly been a miss, and was no request.
        asked = counters.requests + sum(counters.own_unread)
        responses = self._response_memo
        return {
            "request": (max(0, asked - misses), misses),
            "response": (responses.hits + self.breaker.answers_whole, responses.misses),
        }

    def stats(self) -> dict[str, Any]:
        """Return all figures, for people and programs."""
        now = self.loop.time()
        counters = self.counters
        return {
            "uptime_s": now - self.started_at,
            "state": self.breaker.state.value,
            "requests": counters.requests,
            "forwarded": sum(counters.forwarded_get) + sum(counters.forwarded_other),
            "stored": by_reason(counters.stored),
            "refused": {reason.value: n for reason, n in counters.refused.items() if n},
            "client_errors": {r.value: n for r, n in counters.client_errors.items() if n},
            "upstream_errors": {r.value: n for r, n in counters.upstream_errors.items() if n},
            "retries": counters.retries,
            "clients_gone": counters.clients_gone,
            "tls_failed": counters.tls_failed,
            "access_lines_dropped": counters.access_lines_dropped,
            "connections": {
                "open": len(self.connections),
                "accepted": counters.connections,
                "refused": counters.connections_refused,
                "evicted": counters.connections_evicted,
            },
            "exchanges": len(self.exchanges),
            "streams": len(self.streams),
            "upstream": {
                "open": self.pool.open,
                "idle": self.pool.idle,
                "dialling": self.pool.dialling,
                "held": self.pool.held,
                "dials": self.pool.dials,
                "dials_failed": self.pool.dials_failed,
                "resolver_failures": self.pool.resolver.failures,
            },
            "memo": {
                "requests": sum(len(memo) for memo in self._memos.values()),
                "responses": len(self._response_memo),
            },
            "breaker": self.breaker.snapshot(now),
            "store": self.store.stats(),
            "compression": self.compression.stats(),
            "buffers": {"bytes": self.buffers.used, "refused": self.buffers.refused},
        }
