"""One request at the application, from the decision to the head of the response.

`begin` asks the breaker and carries out its decision. A request that is answered from the store or
refused ends there. A request that is forwarded becomes an Exchange. The methods of Exchange are in
the order of their calls:

    begin -> Exchange.send, or later: Exchange.forward -> send
          -> upstream_ready -> response_whole | response_head -> Delivery | upgraded -> Tunnel
    at any time: request_data, connect_failed, upstream_failed, overdue, sweep, downstream_gone

A response that arrives in one piece is passed on here. Any other response is passed to a Delivery
(delivery.py) as soon as its head has arrived, and an upgraded connection to a Tunnel (tunnel.py).

`_answered` detaches the client from the exchange: the client has its response (from the application
or from the store) and is free for its next request. The exchange may continue until the application
has responded, because only then is its slot free again. That response refreshes the store.
"""

from enum import Enum, auto
from typing import Final

from retter.base.errors import (
    ConnectRefused,
    DownstreamError,
    InternalError,
    Outcome,
    UpstreamError,
    UpstreamReset,
    UpstreamTimeout,
)
from retter.base.reason import Reason
from retter.breaker import Kind, Permit, Phase, Rejection
from retter.http.forwarding import ForwardingFields, without_expectation
from retter.http.message import Framing, ResponseHead
from retter.net.supervision import report
from retter.proxy.awaited_streams import NOT_AWAITED
from retter.proxy.client_writer import JOIN_BYTES_MAX
from retter.proxy.delivery import Delivery
from retter.proxy.disk_lookup import waits_for_disk, waits_for_far
from retter.proxy.far_lookup import read_while_held
from retter.proxy.holders import start_waiting
from retter.proxy.interfaces import Client, Work
from retter.proxy.learning import (
    is_doubtful,
    is_plain_change,
    learn_of_change,
    learn_of_failure,
    learn_of_stream,
)
from retter.proxy.local_answers import (
    AwaitedForm,
    StandIn,
    answer_failure,
    answer_from_store,
    answer_impatiently,
    answer_with,
    clock,
    log_request,
    note_client_failed,
    note_client_gone,
    refuse,
    took_so_far_s,
)
from retter.proxy.pool import Dialler
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.responses import Persistence
from retter.proxy.retries import may_be_sent_again
from retter.proxy.services import Services, free_memory
from retter.proxy.stored_choice import (
    entry_to_spare,
    if_readable,
    stale_for_error,
    stored_for_rejected,
)
from retter.proxy.time_limits import first_byte_wait_s
from retter.proxy.upstream_connection import Trailers, UpstreamConnection
from retter.store.record import BODY, CODING, STORED_AT, Record
from retter.store.store import StoredResponse


class Stage(Enum):
    """How far an exchange has come."""

    QUEUED = auto()  # waits for a slot (breaker)
    CONNECTING = auto()  # waits for a connection (pool)
    SENT = auto()  # waits for the response head
    DONE = auto()  # complete, or taken over by a Delivery or a Tunnel


# Looked up once: reading an attribute of an Enum costs three times as much as reading a global.
_DONE: Final = Stage.DONE
_QUEUED: Final = Stage.QUEUED
_CONNECTING: Final = Stage.CONNECTING
_SENT: Final = Stage.SENT
_ADMITTED: Final = Phase.ADMITTED
_IN_FLIGHT: Final = Phase.IN_FLIGHT
_GET: Final = Kind.GET
_OTHER: Final = Kind.OTHER
_OK: Final = Outcome.OK
_NEUTRAL: Final = Outcome.NEUTRAL
_NO_BODY: Final = Framing.NONE
_KEEP: Final = Persistence.KEEP
_FOREVER: Final = float("inf")


# -- deciding -------------------------------------------------------------------------------------


def begin(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    now: float,
    body: RequestBody | None = None,
    *,
    looked: bool = False,
) -> "Exchange | None":
    """Decide how to handle a request, and do it; None if it has been answered already.

    Args:
        body: The request's body. It is complete, unless it is forwarded while it arrives.
        looked: The stored responses for the request have been read from the disk.
    """
    identity = parsed.identity
    if (
        services.disk is not None
        and identity.key not in services.store.shelves.slots
        and identity.key not in services.disk.hot
        and identity.stands_in
        and not looked
        and waits_for_disk(services, client, parsed)
    ):
        return None
    entry = services.store.find(identity, parsed.head, now)  # entry_to_spare, inlined
    if entry is not None and entry[CODING]:
        entry = if_readable(services, parsed, entry)
    forwarding = client.forwarding
    number = (
        services.peers.client_of(forwarding, parsed) if forwarding.trusted else forwarding.number
    )
    kind = parsed.kind
    awaited = NOT_AWAITED
    if parsed.asks_events:
        awaited = services.awaited_streams.judge(identity.route, number, now)
        if awaited:
            kind = _OTHER
    breaker = services.breaker
    permit: Permit | None = None
    if breaker.unsettled.calm:
        permit = breaker.start_at_once(
            now, kind, identity.route, identity.key, entry is not None, number
        )
    elif entry is not None:
        shed = breaker.shed_at_once(now, kind, identity.route)
        if shed is not None:
            if entry[CODING]:
                _answer_without(services, client, parsed, shed, entry, now, body)
            else:
                answer_from_store(services, client, parsed, entry, shed.reason, now)
            return None
    if permit is None:
        permit = _admit_or_answer(
            services, client, parsed, kind, entry, number, now, body, has_stream=awaited != 0
        )
        if permit is None:
            return None
    exchange: Exchange | None = None
    try:
        if services.store.borrowed is not None and entry is not None:
            services.store.keep_borrowed(entry[BODY])  # its response is compared with it
        exchange = Exchange(services, client, parsed, permit, entry, now, body, forwarding)
        if awaited:
            exchange.await_stream(awaited)
        if permit.phase is _IN_FLIGHT:
            exchange.send(now)
        elif permit.phase is _ADMITTED:
            exchange.forward(now)
    except Exception as error:
        if exchange is None or exchange.stage is _QUEUED:
            _give_back(services, client, parsed, permit, exchange, now)
            raise
        # For example, a lack of memory. The client does not refer to the exchange yet, so
        # nothing else could end the exchange and free its slot.
        report(services.loop, "a request could not begin", error)
        exchange.broken(now)
    return exchange if exchange.stage is not _DONE else None


def _admit_or_answer(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    kind: Kind,
    entry: Record | None,
    number: int,
    now: float,
    body: RequestBody | None,
    *,
    has_stream: bool,
) -> Permit | None:
    """Ask the breaker; None if the request has been answered, or waits for another box."""
    if (
        entry is None
        and services.far is not None
        and not has_stream
        and waits_for_far(services, client, parsed)
    ):
        return None
    breaker, identity = services.breaker, parsed.identity
    asker = None  # determined only if there may not be enough slots for all requests
    if breaker.wants_asker(entry is not None):
        asker = services.turns.asker_of(client.forwarding, parsed, number, now, entry is not None)
    age_s: float | None = None if entry is None else now - entry[STORED_AT]
    decision = breaker.admit(now, kind, identity.route, identity.key, age_s, number, asker)
    if not isinstance(decision, Rejection):
        return decision
    if entry is not None and not entry[CODING]:
        answer_from_store(services, client, parsed, entry, decision.reason, now)
    else:
        _answer_without(services, client, parsed, decision, entry, now, body)
    return None


def _give_back(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    permit: Permit,
    exchange: "Exchange | None",
    now: float,
) -> None:
    """Return the permit of a request that could not begin, and the credit of its event stream."""
    if permit.phase is _IN_FLIGHT:
        services.breaker.finished(now, permit, _NEUTRAL)
    else:
        services.breaker.cancel(permit)
    if exchange is not None and exchange.awaited:
        _end_awaited(services, client.forwarding, parsed, exchange.awaited)


def _answer_without(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    decision: Rejection,
    entry: Record | None,
    now: float,
    body: RequestBody | None,
) -> None:
    """Answer without the application: with the stored response, or with a 503."""
    stored = stored_for_rejected(services, parsed, entry, now)
    if stored is not None:
        shown: StoredResponse | None = stored
        if stored.content_coding:
            shown = services.decoding.shown(parsed.identity, stored, parsed.head)
        if shown is not None:
            answer_from_store(services, client, parsed, shown, decision.reason, now)
            return
        began_at = body.began_at if body is not None else clock(services)
        waiter = AwaitedForm(
            services, client, parsed, decision.reason, began_at, 503, decision.retry_after_s
        )
        if waiter.wait_for(stored):
            return
    took_s = 0.0
    if body is not None:
        took_s = took_so_far_s(services, body.began_at)
        body.release()
        if not body.complete:
            client.close_after_answer()  # the rest of the body is not read
    refuse(services, client, parsed, decision.reason, decision.retry_after_s, took_s)


def _log(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    permit: Permit,
    head: ResponseHead,
    body_bytes: int,
    began_at: float,
) -> None:
    """Write the line of a whole answer of the application."""
    took_s, reason = took_so_far_s(services, began_at), permit.reason
    log_request(services, client, parsed, head.status, "backend", reason, took_s, body_bytes)


def _begin_delivery(
    delivery: Delivery, body: bytes, complete: bool, trailers: Trailers, now: float
) -> None:
    """Begin a delivery; if that fails, end it here: its connection would report to the exchange."""
    try:
        delivery.begin(body, complete, trailers, now)
    except Exception:
        delivery.broken(now)
        raise


def _is_held(
    services: Services,
    parsed: ParsedRequest,
    exchange: Dialler,
    error: UpstreamError,
    until: float,
    now: float,
) -> bool:
    """Wait for a restart of the application, unless a stored response can be sent instead."""
    if stale_for_error(services, parsed, now) is not None:
        return False
    services.pool.hold(exchange, until)
    if services.far is not None:
        read_while_held(services, parsed, exchange, error)
    return True


def _bound(
    services: Services,
    client: Client | None,
    forwarding: ForwardingFields,
    parsed: ParsedRequest,
    look: bool,
) -> UpstreamConnection | None:
    """Return the connection that is reserved for this client, if there is one."""
    return services.bound.take(client, forwarding.client_of(parsed.head), look=look)


def _bind(
    services: Services,
    client: Client | None,
    forwarding: ForwardingFields,
    parsed: ParsedRequest,
    connection: UpstreamConnection,
) -> ParsedRequest:
    """Reserve the connection for this client from now on; none of its responses is stored."""
    services.bound.bind(client, forwarding.client_of(parsed.head), connection)
    return parsed.identified_as(parsed.identity.kept_out())


def _end_awaited(
    services: Services, forwarding: ForwardingFields, parsed: ParsedRequest, awaited: int
) -> None:
    """The event stream has begun or failed: its client may await another one."""
    who = services.peers.client_of(forwarding, parsed)
    services.awaited_streams.end(awaited, who)


class Exchange(Work):
    """A forwarded request: holds the permit, the upstream connection and the client."""

    # Class attributes for what most exchanges never read: they cost nothing to set up.
    deadline = _FOREVER  # for the application's next step, monotonic seconds
    awaited = NOT_AWAITED  # otherwise: an event stream that has not begun
    _upstream: UpstreamConnection | None = None
    _retried = False
    _unsent = False  # the connection was lost before the request was sent
    _blocked_since = _FOREVER  # when the client stopped reading; it did not even read a 1xx
    _decoded_later = False  # patience is over; the stored response waits for room to be decoded

    def __init__(
        self,
        services: Services,
        client: Client | None,
        parsed: ParsedRequest,
        permit: Permit,
        entry: Record | None,
        now: float,
        body: RequestBody | None,
        forwarding: ForwardingFields,
    ) -> None:
        self._services = services
        self._client: Client | None = client  # None: a request of RETTER's own
        self._forwarding = forwarding
        self._parsed = parsed
        self._permit = permit
        self._entry = entry  # the earlier stored response, to compare with
        permit.holder = self
        self.stage = _QUEUED
        self._began_at = self.started_at = now  # the former by the access log's clock, if any
        if services.access_log is not None:
            self._began_at = services.access_log.clock() if body is None else body.began_at
        self._body = body  # of the request

    @property
    def stream(self) -> bool:
        return self._parsed.stream

    @property
    def url(self) -> bytes:
        return self._parsed.identity.url

    @property
    def event_stream(self) -> bool:
        return self.awaited != NOT_AWAITED

    @property
    def connected(self) -> bool:
        return self._upstream is not None

    # -- the request ------------------------------------------------------------------------

    def await_stream(self, how: int) -> None:
        """Count as an event stream that has not begun."""
        who = self._services.peers.client_of(self._forwarding, self._parsed)
        self._services.awaited_streams.begin(how, who)
        self.awaited = how

    def forward(self, now: float) -> None:
        """Forward the request: from now on its permit counts as in flight."""
        self._services.breaker.started(now, self._permit)
        self.started_at = now
        self.send(now)

    def take_turn(self, now: float) -> bool:
        """Forward the request, for which a place is free now; False: it leaves it to the next.

        In that case it is answered with what was stored while it waited (RFC 9111 section 4 allows
        to collapse requests), or with 503.
        """
        services, permit = self._services, self._permit

        def is_stored() -> bool:
            return entry_to_spare(services, self._parsed, now, peeking=True) is not None

        reason = services.breaker.decide_again(now, permit, is_stored)
        if reason is None:
            self.forward(now)
            return True
        self._answer_failure(reason, now, 503, services.settings.retry_after_s)
        client = self._client  # None if it has a stored response, or waits for its decoded form
        self._leave()
        permit.holder = None
        if client is not None:
            client.exchange_done(now)
        return False

    def send(self, now: float) -> None:
        """Get a connection for a request that counts as in flight, and send it."""
        services = self._services
        self.stage = _CONNECTING
        if self._parsed.stream or self.awaited:
            services.breaker.detach(now, self._permit)
            services.streams[self] = None
        else:
            services.exchanges[self] = None
        parsed = self._parsed
        # A request that is retried if the application has just closed the connection
        # (upstream_failed) needs no check for unread bytes.
        form = parsed.head.form
        look = parsed.kind is not _GET or form.framing is not _NO_BODY
        if services.bound.clients:
            bound = _bound(services, self._client, self._forwarding, parsed, look)
            if bound is not None:
                services.pool.give(bound, self, now)
                return
        connection = services.pool.ready.take(now, look)
        if connection is None:
            services.pool.acquire(self, now, look=look)
        elif look or parsed.binds or form.conditional or self.awaited:
            self.upstream_ready(connection, now)
        else:
            # A usual GET: a short form of `upstream_ready`, which would cost 1,000 of 75,000
            # instructions of the processor more.
            request, forwarding = parsed.head, self._forwarding
            self._upstream = connection
            self.stage = _SENT
            connection.request_complete = True
            self.deadline = now + services.upstream_timeout_s
            method, forward = request.method, request.made_forward
            if not forward:  # `request.forward`, inlined
                forward = form.forward(method, request.target, request.values)
                request.made_forward = forward
            data = forward + (forwarding.fixed or forwarding.end_of_head(request))
            connection.send(self, method, data, waits=True)

    def keep_from_store(self) -> None:
        """Do not store the response: the identity rules changed after this request was parsed."""
        self._parsed = self._parsed.identified_as(self._parsed.identity.not_stored())

    def wants_upstream(self) -> bool:
        """Whether the exchange still needs the connection that has just been made."""
        return self.stage is _CONNECTING

    def upstream_ready(self, connection: UpstreamConnection, now: float) -> None:
        """Send the part of the request that has arrived."""
        parsed, body = self._parsed, self._body
        request = parsed.head
        self._upstream = connection
        self.stage = _SENT
        if connection.bound or parsed.binds:
            self._parsed = _bind(self._services, self._client, self._forwarding, parsed, connection)
        data = request.forward + self._forwarding.end_of_head(request)
        if request.form.conditional:
            data = self._services.compression.weakened.restored(data)
        if body is None:
            connection.request_complete = True
            # A short form of `_await_first_byte`, which saves two calls for a usual GET.
            self.deadline = now + self._services.upstream_timeout_s
            if parsed.kind is not _GET or self.awaited:
                self._await_first_byte(now)
            connection.send(self, request.method, data, waits=parsed.kind is _GET)
            return
        if body.continued:
            data = without_expectation(data)  # it has been fulfilled
        data += body.take(again=connection.reused and not self._retried)
        complete = connection.request_complete = body.complete
        if complete:
            self._await_first_byte(now)
        elif self._client is not None:
            self._client.resume_body()  # before the write, which may pause reading again at once
        connection.send(self, request.method, data)
        self._unsent = connection.is_closing()

    def request_data(self, data: bytes, now: float) -> None:
        body = self._body
        assert body is not None, "where it comes from"
        if self._upstream is None:
            if self.stage is not _DONE and not body.keep(data) and self._client is not None:
                self._client.pause_body()  # until upstream_ready
            return
        if body.complete:
            self._upstream.request_complete = True
            self._await_first_byte(now)
        self._upstream.write(body.framed(data))

    def _await_first_byte(self, now: float) -> None:
        """Limit the wait for the response; until the request is complete, the client is limited."""
        wait_s = first_byte_wait_s(self._services.settings, self._parsed, self.awaited)
        complete = self._body is None or self._body.complete
        self.deadline = now + wait_s if complete else _FOREVER

    def upstream_blocked(self) -> None:
        """The application does not read: stop reading the request from the client until it does."""
        self.deadline = self._services.loop.time() + self._services.settings.upstream_body_timeout_s
        if self._client is not None:
            self._client.pause_body()

    def upstream_writable(self) -> None:
        """The application reads again."""
        self._await_first_byte(self._services.loop.time())
        if self._client is not None:
            self._client.resume_body()

    # -- the response -----------------------------------------------------------------------

    def response_informational(self, head: ResponseHead) -> None:
        """Forward a 1xx (RFC 9110 section 15.2), but not to an HTTP/1.0 client."""
        if self._client is not None and self._parsed.head.form.http11:
            self._client.out.write(head.forward + b"\r\n")

    def response_whole(self, head: ResponseHead, body: bytes, now: float) -> None:
        """Process a plain response that arrived in one piece: a short form of `response_head`.

        Nearly all responses of a healthy application are of this kind, except those to HEAD. This
        saves 800 of 2,600 instructions for a page, and 900 of 3,400 for a form.
        """
        services, client, parsed = self._services, self._client, self._parsed
        identity = parsed.identity
        is_page, entry = identity.store, self._entry
        equal: bytes | None = None  # the stored body, if it is the same
        if entry is not None and is_page and entry[BODY] == body:
            equal = entry[BODY]
        if (
            client is None
            or services.judges_plain_answers
            or (
                len(body) > services.store_object_bytes_max
                or (equal is None and is_doubtful(services, parsed, entry, head, body, now))
                if is_page
                else not is_plain_change(parsed, self._body)
            )
        ):
            self.response_head(head, body, True, [], now)
            return
        sent, sent_body = head.forward, body
        if head.compressible:
            whole = services.compression.whole(parsed, head, body, equal)
            if whole is None:
                self.response_head(head, body, True, [], now)
                return
            sent, sent_body = whole
        permit, counters = self._permit, services.counters
        if is_page:
            counts, kind = counters.forwarded_get, _GET
        else:
            counts, kind = counters.forwarded_other, _OTHER
            learn_of_change(services, parsed, head, now)
            if self._body is not None:
                if self._body.changes_person:
                    services.keeper.learn_body(identity, parsed.head, now)
                self._body.release()  # it is not sent again
        counts[permit.reason.row + head.status // 100] += 1
        persistence, answers = client.begin_answer(parsed.head), services.answers
        if persistence is _KEEP and is_page:
            end = answers.forwarded_keep
        else:
            end = answers.forwarded_end(kind, persistence)
        if len(sent_body) <= JOIN_BYTES_MAX:
            client.out.write_whole(b"".join((sent, end, sent_body)))
        else:
            client.out.write_message(sent + end, sent_body)
        self.stage = _DONE
        if services.access_log is not None:
            _log(services, client, parsed, permit, head, len(sent_body), self._began_at)
        self._upstream = self._client = None
        permit.holder = None
        del services.exchanges[self]
        breaker = services.breaker
        client_number, had_stored = permit.client, permit.has_stored
        breaker.finished_whole(now, permit)  # the permit may be another's from here on
        if is_page:
            if entry is None and identity.session:  # as in `Keeper.keep`
                services.owner_rules.seen.known.answered(
                    identity.marks, now, identity.owner in services.store.shelves.owner_keys
                )
            try:
                services.store.put(
                    identity, parsed.head, head, body, self.started_at, now, False,
                    client_number,
                )  # fmt: skip
            except MemoryError:
                free_memory(services)
        withdrawals = services.withdrawals  # as in learning.py, inlined
        withdrawals.confirmed += had_stored
        if withdrawals.clients:
            withdrawals.answered_well(client_number)
        client.exchange_done(now)
        if breaker.unsettled.room.waiting:
            start_waiting(services, now)

    def response_head(
        self, head: ResponseHead, body: bytes, complete: bool, trailers: Trailers, now: float
    ) -> None:
        """Process the head and the part of the body that came with it: a delivery takes over."""
        services, upstream, client = self._services, self._upstream, self._client
        assert upstream is not None, "where it comes from"
        if head.status == 401 and upstream.bound:
            self._parsed = _bind(services, client, self._forwarding, self._parsed, upstream)
        parsed = self._parsed
        if parsed.asks_events:
            learn_of_stream(services, parsed, head, now)
        delivery = Delivery(
            services, client, upstream, parsed, self._permit, self._entry, self._body, head,
            self._began_at, self.started_at,
        )  # fmt: skip
        self._leave()
        upstream.hand_over(delivery)
        if client is not None:
            client.hand_over(delivery)
        if self._blocked_since < _FOREVER:
            delivery.blocked_since(self._blocked_since)
        _begin_delivery(delivery, body, complete, trailers, now)
        if self._decoded_later:
            delivery.answer_impatiently(now)

    def _leave(self) -> None:
        """End the exchange, except for the permit, client and connection: the caller has these."""
        if self._body is not None:
            self._body.release()  # it is not sent again
        if self.awaited:
            _end_awaited(self._services, self._forwarding, self._parsed, self.awaited)
            self.awaited = NOT_AWAITED
        self.stage = _DONE
        self._client = self._upstream = None
        self._services.exchanges.pop(self, None)
        self._services.streams.pop(self, None)

    def upgraded(self, head: ResponseHead, data: bytes, now: float) -> None:
        """After a 101, bytes flow in both directions (RFC 9110 section 7.8): start a tunnel."""
        from retter.proxy.tunnel import check_upgrade, open_tunnel  # most processes do not need it

        services, client, upstream = self._services, self._client, self._upstream
        if client is None or upstream is None:
            self.abort_request(now)  # the client that asked for the tunnel has left
            return
        parsed, permit = self._parsed, self._permit
        check_upgrade(parsed, self._body)
        self._leave()
        open_tunnel(services, client, upstream, parsed, permit, head, data, self._began_at, now)

    # -- backpressure -------------------------------------------------------------------------

    def downstream_blocked(self) -> None:
        """The client does not read, not even a 1xx: stop reading the response until it does."""
        if self._upstream is not None:
            self._upstream.pause_reading()
        self.deadline = _FOREVER  # the client's own time limit applies
        self._blocked_since = min(self._blocked_since, self._services.loop.time())

    def downstream_writable(self) -> None:
        self._blocked_since = _FOREVER
        if self._upstream is not None:  # else connecting and waiting have their own time limits
            self._await_first_byte(self._services.loop.time())
            self._upstream.resume_reading()

    # -- failures -----------------------------------------------------------------------------

    def connect_failed(self, error: UpstreamError, now: float, *, held: bool = False) -> None:
        """Answer from the store at once; with nothing stored, wait once for a restart."""
        if self.stage is not _CONNECTING:
            return
        if isinstance(error, ConnectRefused) and self._client is not None and not held:
            until = self.started_at + self._services.settings.connect_hold_s
            if now < until and _is_held(self._services, self._parsed, self, error, until, now):
                return
        self._fail(error, now)

    def upstream_failed(self, error: UpstreamError, now: float) -> None:
        """The connection was lost, or the bytes on it were not a valid response."""
        connection, self._upstream = self._upstream, None
        if (
            isinstance(error, UpstreamReset)
            and not self._retried
            and (self._client is not None or self._permit.reason is Reason.PROBE)
            and may_be_sent_again(self._parsed, self._body, connection, unsent=self._unsent)
        ):
            self._retried = True
            self.stage = _CONNECTING
            self.deadline = _FOREVER  # connecting and waiting have their own time limits
            self._services.counters.retries += 1
            self._services.pool.acquire(self, now, fresh=True)
            return
        self._fail(error, now)

    def _fail(self, error: UpstreamError, now: float) -> None:
        """The application has no valid response to this request."""
        services = self._services
        learn_of_failure(services, self._parsed, self._permit, now)
        services.counters.upstream_errors[error.reason] += 1
        self._answer_failure(error.reason, now, error.status)
        if self.stage is not _DONE:
            self._finish(error.outcome, now)

    def broken(self, now: float) -> None:
        self._abort_upstream()
        if self.stage is not _DONE:
            self._fail(InternalError("no memory, or a fault of our own"), now)

    def sweep(self, now: float) -> None:
        if now >= self.deadline:
            self._abort_upstream()
            self._fail(UpstreamTimeout("no answer in time"), now)
        elif self._decoded_later and self._services.decoding.has_room:
            self._answer_impatiently(now)

    def overdue(self, reason: Reason, now: float) -> None:
        services, client = self._services, self._client
        if reason is not Reason.PATIENCE:
            assert client is not None, "a queued exchange whose client left has been cancelled"
            self._answer_failure(reason, now, 503, services.settings.retry_after_s)
            self._finish(_NEUTRAL, now)
            return
        learn_of_failure(services, self._parsed, self._permit, now)
        self._answer_impatiently(now)

    def _answer_impatiently(self, now: float) -> None:
        client = self._client
        if client is None:
            return
        came = answer_impatiently(
            self._services, client, self._parsed, now, self._began_at, self._permit
        )
        self._decoded_later = came is StandIn.LATER
        if came is StandIn.WRITTEN:
            self._answered(now)

    def form_made(self, shown: StoredResponse | None, now: float) -> None:
        """Answer with the response decoded for this client, if the client still waits."""
        client = self._client
        if shown is not None and client is not None:
            parsed, reason = self._parsed, Reason.PATIENCE
            answer_with(self._services, client, parsed, shown, reason, now, self._began_at)
            self._answered(now)

    def downstream_gone(self, now: float) -> None:
        note_client_gone(self._services, self._client, self._parsed, self._began_at)
        self._detach_client(now)

    def client_failed(self, error: DownstreamError, now: float) -> None:
        note_client_failed(self._services, self._client, self._parsed, error, self._began_at)
        self._detach_client(now)

    def _detach_client(self, now: float) -> None:
        """Detach the client: nobody waits for the response any more."""
        self._client = None
        if self.stage is _DONE:
            return
        if self.stage is _QUEUED:
            self._services.breaker.cancel(self._permit)
            self._finish(_NEUTRAL, now)
        elif self.stage is _CONNECTING:
            self._services.pool.unhold(self)
            self._finish(_NEUTRAL, now)
        elif self._parsed.stream or self.awaited or (self._body and not self._body.complete):
            self.abort_request(now)
        elif self.deadline == _FOREVER:
            self.downstream_writable()  # the client is lost, so its backpressure ends

    # -- the end --------------------------------------------------------------------------------

    def abort_request(self, now: float) -> None:
        self._abort_upstream()
        self._finish(_NEUTRAL, now)

    def _abort_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.discard()

    def _answer_failure(
        self, reason: Reason, now: float, status: int, retry_after_s: float = 0.0
    ) -> None:
        """Answer from the store, else with the error; then the client is free at the end."""
        client = self._client
        if client is None:
            return
        came = answer_failure(
            self._services, client, self._parsed, self._body, reason, now, self._began_at,
            status, retry_after_s,
        )  # fmt: skip
        if came is StandIn.AWAITED:
            self._client = None
        if came is not StandIn.NONE:
            self._answered(now)

    def _answered(self, now: float) -> None:
        """Detach the client: it has its response and is free for its next request."""
        client, self._client = self._client, None
        if self._upstream is not None and self.deadline == _FOREVER:
            self.downstream_writable()  # the client's backpressure ends
        self._blocked_since = _FOREVER  # also if it has no connection yet
        if client is not None:
            client.exchange_done(now)

    def _finish(self, outcome: Outcome, now: float) -> None:
        """Report the permit, and let the client and the next queued request continue."""
        assert self.stage is not _DONE, "an exchange ends once"
        services, permit, client = self._services, self._permit, self._client
        queued = self.stage is _QUEUED
        self._leave()
        permit.holder = None
        if not queued:
            services.breaker.finished(now, permit, outcome)
        if client is not None:
            client.exchange_done(now)
        if services.breaker.waiting:
            start_waiting(services, now)
