"""One request and its answer, from the decision to the report.

`begin` asks the breaker and carries the decision out. A request that is answered from the store or
refused ends right there; one that is forwarded becomes an Exchange, whose methods stand in the
order in which they are called:

    begin -> Exchange.wait | Exchange.forward
          -> upstream_ready -> response_head -> response_data ... -> finish
    on the way: request_data, connect_failed, upstream_failed, overdue, sweep, downstream_gone

The client and the exchange part company in one way only, `_answered`: the client has its answer
(from the application or from the store) and is free for its next request, while the exchange may
live on until the application has answered, because only then is its place free again. What comes
then refreshes the store.
"""

from dataclasses import replace
from enum import Enum, auto

from retter.base.errors import (
    ConnectRefused,
    DownstreamError,
    InternalError,
    Outcome,
    UpstreamError,
    UpstreamMalformed,
    UpstreamReset,
    UpstreamTimeout,
    outcome_of,
)
from retter.base.reason import Reason
from retter.breaker import Kind, Permit, Phase, State
from retter.http.forwarding import ForwardingFields, without_expectation
from retter.http.message import Framing, ResponseHead
from retter.net.supervision import report
from retter.proxy.awaited_streams import NOT_AWAITED
from retter.proxy.goodness import NEW_BYTES_MAX, Verdict, has_shrunk
from retter.proxy.holders import start_waiting
from retter.proxy.interfaces import Client, Work
from retter.proxy.local_answers import (
    AwaitedForm,
    answer_error,
    answer_from_store,
    clock,
    last_resort,
    refuse,
    shown_to,
    took_so_far_s,
)
from retter.proxy.relay import ResponseRelay
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services, free_memory
from retter.proxy.tunnel import STREAM_IDLE_S, Tunnel
from retter.proxy.upstream_connection import Trailers, UpstreamConnection
from retter.store.policy import Identity, invalidated_urls, storable
from retter.store.record import (
    BODY,
    CODING,
    STORED_AT,
    WITHDRAWN,
    Record,
    as_stored,
)
from retter.store.store import StoredResponse

# An answer whose client has not taken it for so long, and does not take it now, leaves its place to
# others: how long it takes is the client's doing, and a few slow readers would keep everybody out.
SLOW_READER_S = 0.25

# RFC 9110 section 9.2.2: these may be sent twice without harm.
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
# RFC 9110 section 9.2.1: these change nothing, so they make no stored response out of date.
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Stage(Enum):
    """How far an exchange has come."""

    QUEUED = auto()  # waits for a place (breaker)
    CONNECTING = auto()  # waits for a connection (pool)
    SENT = auto()  # waits for the response head
    RECEIVING = auto()  # the head has arrived
    DONE = auto()  # or taken over by a Tunnel


# Looked up once: an Enum member's attribute access costs three times a global's.
_DONE = Stage.DONE
_QUEUED = Stage.QUEUED
_CONNECTING = Stage.CONNECTING
_SENT = Stage.SENT
_ADMITTED = Phase.ADMITTED
_GET = Kind.GET
_OK = Outcome.OK
_NEUTRAL = Outcome.NEUTRAL
_NO_BODY = Framing.NONE


# -- deciding -------------------------------------------------------------------------------------


def begin(
    services: Services,
    client: Client,
    parsed: ParsedRequest,
    now: float,
    body: RequestBody | None = None,
) -> "Exchange | None":
    """Decide what becomes of a request and do it; None if it has been answered already.

    A `body` is complete, unless it is passed on as it comes.
    """
    identity = parsed.identity
    found: Record | None = None
    age_s: float | None = None
    if identity.lookup:
        found = services.store.find(identity, parsed.head, now)
        if found is not None:
            if not found[CODING] or services.decoding.readable(as_stored(found), parsed.head):
                age_s = now - found[STORED_AT]
            else:
                found = None
    kind, awaited = parsed.kind, NOT_AWAITED
    if parsed.asks_events:
        who = services.peers.client_of(client.forwarding, parsed)
        awaited = services.awaited_streams.begin(identity.route, who, now)
        if awaited:
            kind = Kind.OTHER
    forwarding = client.forwarding
    number = (
        services.peers.client_of(forwarding, parsed) if forwarding.trusted else forwarding.number
    )
    decision = services.breaker.admit(now, kind, identity.route, identity.key, age_s, number)
    if isinstance(decision, Permit):
        exchange: Exchange | None = None
        try:
            exchange = Exchange(services, client, parsed, decision, found, now, body, forwarding)
            if awaited:
                exchange.awaited = awaited
            if decision.phase is _ADMITTED:
                exchange.forward(now)
        except Exception as error:
            if exchange is None or exchange.stage is _QUEUED:
                services.breaker.cancel(now, decision)
                if body is not None:
                    body.release()
                raise
            # For want of memory, say. The client does not know of the exchange yet, so nobody else
            # could end it and give its place back.
            report(services.loop, "a request could not begin", error)
            exchange.broken(now)
        return exchange if exchange.stage is not _DONE else None
    if awaited:
        services.awaited_streams.end(awaited, services.peers.client_of(client.forwarding, parsed))
    stored: StoredResponse | None
    if found is not None and decision.serve_stored:
        stored = as_stored(found)
    else:
        stored = last_resort(services, parsed, now)
    if stored is not None:
        shown: StoredResponse | None = stored
        if stored.content_coding:
            shown = services.decoding.shown(identity, stored, parsed.head)
        if shown is not None:
            answer_from_store(services, client, parsed, shown, decision.reason, now)
            return None
        began_at = body.began_at if body is not None else clock(services)
        waiter = AwaitedForm(
            services, client, parsed, decision.reason, began_at, 503, decision.retry_after_s
        )
        if waiter.wait_for(stored):
            return None
    took_s = 0.0
    if body is not None:
        took_s = took_so_far_s(services, body.began_at)
        body.release()
        if not body.complete:
            client.close_after_answer()  # the rest of it is not read
    refuse(services, client, parsed, decision.reason, decision.retry_after_s, took_s)
    return None


class Exchange(Work):
    """A forwarded request: holds the permit, the upstream connection and the client.

    What most exchanges never change stands on the class: it costs nothing to set up.
    """

    deadline = float("inf")  # of the upstream's next step, monotonic seconds
    awaited = NOT_AWAITED  # whether it is an event stream that has not begun
    # the request
    _upstream: UpstreamConnection | None = None
    _retried = False
    _unsent = False  # the connection was lost before the request went
    # the answer
    _relay: ResponseRelay | None = None  # of an answer that is not passed on in one step
    _outcome = Outcome.NEUTRAL
    _blocked = False  # the client does not take the answer
    _blocked_since = float("inf")  # or did not at some time, for the first time
    _silence_s = 0.0  # allowed between bytes of the answer

    def __init__(
        self,
        services: Services,
        client: Client | None,
        parsed: ParsedRequest,
        permit: Permit,
        found: Record | None,
        now: float,
        body: RequestBody | None,
        forwarding: ForwardingFields,
    ) -> None:
        self._services = services
        self._client: Client | None = client  # None: we ask ourselves
        self._forwarding = forwarding
        self._parsed = parsed
        self._permit = permit
        self._found = found  # stored before, to compare the answer with
        permit.holder = self
        self.stage = _QUEUED
        self._began_at = self.started_at = self._requested_at = now
        if services.access_log is not None:
            self._began_at = services.access_log.clock() if body is None else body.began_at
        self._body = body  # of the request

    @property
    def stream(self) -> bool:
        """Whether it takes long on purpose (`--stream-paths`)."""
        return self._parsed.stream

    @property
    def event_stream(self) -> bool:
        """Whether an event stream is awaited or being received."""
        if self.awaited:
            return True
        return self._relay is not None and self._relay.head.event_stream

    @property
    def answer_begun(self) -> bool:
        """Whether bytes of the application's answer went to the client."""
        return self._relay is not None and self._relay.begun

    # -- the request ------------------------------------------------------------------------

    def forward(self, now: float) -> None:
        """Go to the application: the permit counts from here."""
        services = self._services
        services.breaker.started(now, self._permit)
        self.started_at = self._requested_at = now
        self.stage = _CONNECTING
        if self._parsed.stream or self.awaited:
            services.breaker.detach(now, self._permit)
            services.streams[self] = None
        else:
            services.exchanges[self] = None
        parsed = self._parsed
        # What is asked again where the application has just closed (upstream_failed) needs no look.
        look = parsed.kind is not _GET or parsed.head.framing is not _NO_BODY
        bound = self._bound_connection(look) if services.bound.clients else None
        if bound is not None:
            services.pool.give(bound, self, now)
        else:
            services.pool.acquire(self, now, look=look)

    def _bound_connection(self, look: bool) -> UpstreamConnection | None:
        """Return the connection that knows who the client is, if there is one."""
        return self._services.bound.take(self._client, self._client_address(), look=look)

    def _client_address(self) -> str:
        return self._forwarding.client_of(self._parsed.head)

    def _bind(self, connection: UpstreamConnection) -> None:
        """The connection is this client's alone from here on, and nothing of it is stored."""
        self._services.bound.bind(self._client, self._client_address(), connection)
        self._identify_as(
            replace(self._parsed.identity, lookup=False, store=False, stands_in=False)
        )

    def _first_byte_wait_s(self) -> float:
        if self._parsed.stream or self.awaited:
            return STREAM_IDLE_S
        settings = self._services.settings
        wait_s = settings.upstream_timeout_s
        if self._parsed.head.method in _SAFE:
            return wait_s
        # No stored response stands in for its answer, and who gets none may send it again: done
        # twice, that is worse than a wait.
        return max(wait_s, settings.upstream_timeout_unsafe_s)

    def keep_from_store(self) -> None:
        """The answer is not to be stored: who asks is told by other rules since it was asked."""
        self._identify_as(replace(self._parsed.identity, store=False))

    def _identify_as(self, identity: Identity) -> None:
        parsed = self._parsed
        self._parsed = type(parsed)(
            parsed.head, identity, parsed.kind, parsed.stream, parsed.asks_events
        )

    @property
    def connected(self) -> bool:
        """Whether it has a connection to the application."""
        return self._upstream is not None

    def wants_upstream(self) -> bool:
        """Whether a connection that has just been dialled is still of use."""
        return self.stage is _CONNECTING

    def upstream_ready(self, connection: UpstreamConnection, now: float) -> None:
        """Send what there is of the request."""
        request = self._parsed.head
        self._upstream = connection
        self.stage = _SENT
        if connection.bound or self._parsed.binds:
            self._bind(connection)
        body = self._body
        complete = connection.request_complete = body is None or body.complete
        data = request.forward + self._forwarding.end_of_head(request)
        if request.conditional:
            data = self._services.compression.weakened.restored(data)
        if body is not None:
            if body.continued:
                data = without_expectation(data)  # it has been met
            data += body.take(again=connection.reused and not self._retried)
        if complete:
            self.deadline = now + self._first_byte_wait_s()
        elif self._client is not None:
            self._client.resume_body()  # before the write, which may pause it at once
        connection.send(self, request.method, data)
        if body is not None:
            self._unsent = connection.is_closing()

    def request_data(self, data: bytes, now: float) -> None:
        """Take a piece of the request's body from the client."""
        body = self._body
        assert body is not None, "where it comes from"
        if self._upstream is None:
            if self.stage is not _DONE and not body.keep(data) and self._client is not None:
                self._client.pause_body()  # until upstream_ready
            return
        if body.complete:
            self._upstream.request_complete = True
            self.deadline = now + self._first_byte_wait_s()
        self._upstream.write(body.framed(data))

    def _request_complete(self) -> bool:
        """Whether all of the request has come from the client."""
        return self._body is None or self._body.complete

    def upstream_blocked(self) -> None:
        """The application does not read: the client stops sending until it does."""
        self.deadline = self._services.loop.time() + self._services.settings.upstream_body_timeout_s
        if self._client is not None:
            self._client.pause_body()

    def upstream_writable(self) -> None:
        """The application reads again."""
        if self._request_complete():
            self.deadline = self._services.loop.time() + self._first_byte_wait_s()
        else:
            self.deadline = float("inf")  # the client's own time limits hold
        if self._client is not None:
            self._client.resume_body()

    # -- the answer -------------------------------------------------------------------------

    def response_informational(self, head: ResponseHead) -> None:
        """Pass a 1xx on (RFC 9110 section 15.2); HTTP/1.0 does not know them."""
        if self._client is not None and self._parsed.head.http11 and not self.answer_begun:
            self._client.write(head.forward + b"\r\n")

    def response_whole(self, head: ResponseHead, body: bytes, now: float) -> None:
        """Take a plain answer that arrived in one piece: the short way through `response_head`.

        Nearly all answers to GETs of a healthy application are of this kind, and it saves them a
        third of the calls (measured: 2.5 of 8 us of Python in a forwarded request).
        """
        services, client, parsed = self._services, self._client, self._parsed
        identity = parsed.identity
        found = self._found
        if (
            client is None
            or not identity.store
            or services.judges_plain_answers
            or len(body) > services.settings.store_object_bytes_max
            or ((found is None or found[BODY] != body) and self._is_doubtful(body, now))
        ):
            self.response_head(head, body, True, [], now)
            return
        sent, sent_body = head.forward, body
        if head.compressible:
            whole = services.compression.whole(parsed, head, body)
            if whole is None:
                self.response_head(head, body, True, [], now)
                return
            sent, sent_body = whole
        permit = self._permit
        services.counters.forwarded_get[permit.reason.row + head.status // 100] += 1
        end = services.answers.forwarded_end(_GET, client.begin_answer(parsed.head))
        client.write_message(sent + end, sent_body)
        self.stage = _DONE
        if services.access_log is not None:
            self._log(head.status, "backend", permit.reason, len(sent_body))
        self._upstream = self._client = None
        permit.holder = None
        del services.exchanges[self]
        breaker = services.breaker
        breaker.finished(now, permit, _OK)
        try:
            services.store.put(
                identity, parsed.head, head, body, self._requested_at, now, False, permit.client
            )
        except MemoryError:
            free_memory(services)
        withdrawals = services.withdrawals  # as in `_answered_well`, without a call
        withdrawals.confirmed += permit.has_stored
        if withdrawals.clients:
            withdrawals.answered_well(permit.client)
        client.exchange_done(now)
        if breaker.waiting:
            start_waiting(services, now)

    def response_head(
        self, head: ResponseHead, body: bytes, complete: bool, trailers: Trailers, now: float
    ) -> None:
        """Take the head and what came with it of the body; decide where the body goes."""
        if head.status == 401 and self._upstream is not None and self._upstream.bound:
            self._bind(self._upstream)
        services, parsed = self._services, self._parsed
        if self._body is not None:
            self._body.release()  # it is not sent again
        relay = ResponseRelay(services, parsed, self._body, self._permit, head, self)
        self._relay = relay
        self.stage = Stage.RECEIVING
        if complete:
            self._upstream = None  # it is in the pool by now, or works for another exchange
        elif services.access_log is not None:
            relay.first_byte_s = took_so_far_s(self._services, self._began_at)
        self._silence_s = services.settings.upstream_body_timeout_s
        if parsed.stream:
            self._silence_s = STREAM_IDLE_S
        self._outcome = outcome_of(head.status, services.failure_statuses)
        if parsed.asks_events:
            route, stream = parsed.identity.route, head.event_stream
            services.awaited_streams.answered(route, head.status, self._outcome, now, stream=stream)
            self._end_wait()
        self._learn(relay, head, now)
        if self._outcome is not _OK and self._outcome is not _NEUTRAL:
            self._failed(Reason.UPSTREAM_STATUS, now)
        if not complete:
            self._receive_on(relay, head, now)
        self._pass_on(relay, body, complete, trailers, now)

    def _failed(self, reason: Reason, now: float) -> None:
        """What came is no good answer: the stored one instead (stale-if-error, RFC 5861 4)."""
        services = self._services
        services.goodness.failed(now)
        if self._client is not None and not self.answer_begun:
            self._answer_from_store(reason, now, 502)

    # -- is it good? --------------------------------------------------------------------------

    def _is_doubtful(self, body: bytes, now: float) -> bool:
        """Tell at once whether a plain answer must be judged by its body."""
        found, services = self._found, self._services
        if found is not None:
            stored_body: bytes = found[BODY]
            if not found[CODING] and 2 * len(body) >= len(stored_body):
                return False  # nearly always, so without a call
            return has_shrunk(body, stored_body)
        # Nothing is stored, or nothing that was to spare the application work.
        if services.goodness.in_trouble(now) and len(body) < NEW_BYTES_MAX:
            return True
        return services.store.has_any(self._parsed.identity)

    def _judge_body(self, relay: ResponseRelay, data: bytes, now: float) -> None:
        """Judge an answer when the last of it has come, before that goes anywhere."""
        services, parsed = self._services, self._parsed
        if self._outcome is not Outcome.OK or not parsed.identity.lookup:
            return
        if parsed.head.method == b"HEAD":
            return  # with --limit-head; it has no body to be judged by
        body = relay.whole(data)
        if body is None:
            return
        found = self._found
        stored = (
            services.store.peek(parsed.identity, parsed.head, now)[0]
            if found is None else as_stored(found)
        )  # fmt: skip
        if stored is not None and stored.age_max_s == WITHDRAWN:
            stored = None
        verdict = services.goodness.judge(
            parsed.identity.key,
            relay.head,
            body,
            stored,
            trouble=services.breaker.state is not State.CLOSED or services.goodness.in_trouble(now),
        )
        if verdict is Verdict.GOOD:
            return
        relay.drop_copy()
        if verdict is Verdict.UNCLEAR:
            self._outcome = Outcome.NEUTRAL
        elif verdict is Verdict.FAILED:
            self._outcome = Outcome.ERROR
            services.counters.upstream_errors[Reason.FAILURE_TEXT] += 1
            self._failed(Reason.FAILURE_TEXT, now)

    def _end_wait(self) -> None:
        """An event stream is not awaited any more."""
        if self.awaited:
            who = self._services.peers.client_of(self._forwarding, self._parsed)
            self._services.awaited_streams.end(self.awaited, who)
            self.awaited = NOT_AWAITED

    def _learn(self, relay: ResponseRelay, head: ResponseHead, now: float) -> None:
        """What the head alone tells the store."""
        services, identity, request = self._services, self._parsed.identity, self._parsed.head
        rules = services.owner_rules
        if head.set_cookies:
            services.keeper.learn_cookies(identity, request, head, now)
        if self._outcome is _OK:
            if head.status < 400:
                self._answered_well()
            elif identity.lookup and request.method == b"GET":  # not each knows HEAD
                who = self._permit.client
                services.withdrawals.refused(
                    identity, head.status, services.breaker.state, who, now
                )
        if request.method not in _SAFE:
            if urls := invalidated_urls(request, head, rules):
                services.store.supersede(identity, urls, now)
        elif self._outcome is Outcome.OK and storable(
            identity, request, head, services.store_policy, rules
        ):
            relay.keep_copy()
        elif head.status == 304 and identity.lookup:
            services.store.refresh(
                identity, request, head, self._requested_at, now, self._permit.client
            )

    def _answered_well(self) -> None:
        """The application has not taken this page back."""
        withdrawals = self._services.withdrawals
        withdrawals.confirmed += self._permit.has_stored
        if withdrawals.clients:
            withdrawals.answered_well(self._permit.client)

    def _receive_on(self, relay: ResponseRelay, head: ResponseHead, now: float) -> None:
        """The body will come in pieces: set its time limit, hold it back or let it through."""
        services, parsed = self._services, self._parsed
        if head.event_stream:
            self._silence_s = STREAM_IDLE_S
            self.deadline = now + STREAM_IDLE_S
            relay.drop_copy()
            services.breaker.detach(now, self._permit)
            services.streams[self] = services.exchanges.pop(self, None)
            start_waiting(services, now)
            if self._client is None:
                self._abandon(Outcome.NEUTRAL, now)  # nobody listens any more
            return
        self.deadline = now + self._silence_s
        if head.content_length > services.settings.store_object_bytes_max:
            relay.drop_copy()
        if parsed.stream or not parsed.identity.lookup:
            return
        relay.start_window(now)
        if self._client is not None and last_resort(services, parsed, now) is not None:
            closed = services.breaker.state is State.CLOSED
            relay.hold(now, trouble=not closed or services.goodness.failed_lately(now))

    def response_data(self, data: bytes, complete: bool, trailers: Trailers, now: float) -> None:
        """Take a piece of the body."""
        relay = self._relay
        assert relay is not None, "its head has come"
        self.deadline = now + self._silence_s
        if complete:
            self._upstream = None  # it is in the pool by now
            if relay.ends_empty(data):
                relay.drop_copy()
                if relay.drop_held():
                    self._fail(UpstreamReset("ended with its head"), now)
                    return
        self._pass_on(relay, data, complete, trailers, now)

    def _pass_on(
        self, relay: ResponseRelay, data: bytes, complete: bool, trailers: Trailers, now: float
    ) -> None:
        if complete:
            self._judge_body(relay, data, now)
        relay.take(self._client, data, complete, trailers, now)
        if not relay.is_held:
            self._tell_first_byte(now)
        if self.stage is _DONE:
            return
        # Nobody wants it: read on so that the application gets done, but not for ever.
        if relay.discarded_bytes > self._services.settings.store_object_bytes_max:
            self._abandon(self._outcome, now)
        elif complete:
            self._finish(now)

    def _tell_first_byte(self, now: float) -> None:
        """The patience for it ends: not while a head alone has come that may be all."""
        if self._permit.first_byte_at < 0:
            self._services.breaker.first_byte(now, self._permit)

    # -- compressing --------------------------------------------------------------------------

    def encoding(self) -> None:
        """A piece of the body is in the thread: the application waits with the next."""
        if self._upstream is not None:
            self._upstream.pause_reading()

    def encoded(self, data: bytes, complete: bool) -> None:
        """Send what came out of the thread, or was flushed."""
        client, relay = self._client, self._relay
        if client is None or relay is None:
            return
        relay.send_encoded(client, data)
        if complete:
            self._log_answer(self._permit.reason)
            self._answered(self._services.loop.time())
        elif self._upstream is not None and not self._blocked:
            self._upstream.resume_reading()

    def encoding_failed(self) -> None:
        """The answer cannot be brought to its end: it must look like one that is cut."""
        self._log_answer(self._permit.reason)
        self._cut_off()
        if self.stage is _DONE:
            self._relay = None
        else:
            self._abandon(Outcome.NEUTRAL, self._services.loop.time())

    def _is_encoding(self) -> bool:
        return self._relay is not None and self._relay.is_encoding()

    # -- the tunnel -------------------------------------------------------------------------

    def upgraded(self, head: ResponseHead, data: bytes, now: float) -> None:
        """After a 101 bytes go both ways (RFC 9110 section 7.8): a tunnel takes over."""
        services, client, upstream = self._services, self._client, self._upstream
        parsed, permit = self._parsed, self._permit
        if client is None or upstream is None:
            self._abandon(Outcome.NEUTRAL, now)  # who wanted the tunnel has left
            return
        # A request's body comes before the new protocol's first byte (RFC 9110 section 7.8).
        if not parsed.head.upgrade or not self._request_complete():
            # raised inside the connection's callback, which turns it into upstream_failed
            raise UpstreamMalformed("a 101 that was not asked for")
        if self._body is not None:
            self._body.release()
        self.stage = _DONE
        self._client = self._upstream = None
        services.exchanges.pop(self, None)
        services.streams.pop(self, None)
        permit.holder = None
        services.breaker.first_byte(now, permit)
        services.breaker.detach(now, permit)
        services.counters.count_forwarded(parsed.kind is _GET, permit.reason, 101)
        client.write(head.forward + b"Via: 1.1 retter\r\n\r\n" + data)
        tunnel = Tunnel(
            services, client, upstream, parsed.head, parsed.identity, permit, self._began_at, now
        )
        upstream.begin_tunnel(tunnel)
        client.begin_tunnel(tunnel, now)
        start_waiting(services, now)

    # -- backpressure -------------------------------------------------------------------------

    def downstream_blocked(self) -> None:
        """The client does not read: the application's answer waits until it does."""
        if self._upstream is not None:
            self._upstream.pause_reading()
        self.deadline = float("inf")  # the client's own time limit holds
        if self._relay is not None:
            self._relay.stop_window()
        self._blocked = True
        self._blocked_since = min(self._blocked_since, self._services.loop.time())

    def downstream_writable(self) -> None:
        """The client reads again."""
        self._blocked = False
        silence_s = self._silence_s
        if not silence_s:
            # A 1xx has blocked it: the first byte of the answer is still waited for, but not
            # before the request is complete.
            timeout_s = self._first_byte_wait_s()
            silence_s = timeout_s if self._request_complete() else float("inf")
        now = self._services.loop.time()
        self.deadline = now + silence_s
        if self._relay is not None and self._relay.paced:
            self._relay.start_window(now)
        if self._upstream is not None and not self._is_encoding():
            self._upstream.resume_reading()

    # -- what goes wrong ----------------------------------------------------------------------

    def connect_failed(self, error: UpstreamError, now: float) -> None:
        """No connection: the stored response at once, else hold on for a restart."""
        if self.stage is not Stage.CONNECTING:
            return
        if isinstance(error, ConnectRefused) and self._client is not None:
            until = self.started_at + self._services.settings.connect_hold_s
            if now < until and last_resort(self._services, self._parsed, now) is None:
                self._services.pool.hold(self, until)
                return
        self._fail(error, now)

    def hold_expired(self, error: UpstreamError, now: float) -> None:
        """It was refused for as long as we hold on."""
        self._fail(error, now)

    def upstream_failed(self, error: UpstreamError, now: float) -> None:
        """The connection died, or what came over it was not an answer."""
        connection, self._upstream = self._upstream, None
        if (
            isinstance(error, UpstreamReset)
            and connection is not None
            and connection.reused
            and not connection.answered
            and not self._retried
            and (self._client is not None or self._permit.reason is Reason.PROBE)
            and (self._body is None or self._body.at_hand())
            and (self._parsed.head.method in _IDEMPOTENT or self._unsent)
        ):
            # The application closed an idle connection just as we used it. Once more, on a fresh
            # one: RFC 9110 section 9.2.2 allows it for idempotent methods, and for others if the
            # application cannot have got the request.
            self._retried = True
            self.stage = Stage.CONNECTING
            self.deadline = float("inf")  # dialling and holding have time limits of their own
            self._services.counters.retries += 1
            self._services.pool.acquire(self, now, fresh=True)
            return
        self._fail(error, now)

    def _fail(self, error: UpstreamError, now: float) -> None:
        """The application has no good answer to this one."""
        services, client = self._services, self._client
        self._outcome = error.outcome
        services.goodness.failed(now)
        if self._relay is not None:
            self._relay.drop_copy()
        services.counters.upstream_errors[error.reason] += 1
        if client is not None:
            if self.answer_begun:
                self._log_answer(error.reason)
                self._cut_off()
            elif not self._answer_from_store(error.reason, now, error.status):
                if not self._request_complete():
                    client.close_after_answer()
                took_s = took_so_far_s(services, self._began_at)
                answer_error(services, client, self._parsed, error.status, error.reason, took_s)
        if self.stage is not Stage.DONE:
            self._finish(now)

    def broken(self, now: float) -> None:
        """Our own work on the answer has failed: the client does not wait, nor is a place taken."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        if self.stage is not _DONE:
            self._fail(InternalError("no memory, or a fault of our own"), now)
        elif self._client is not None:
            self._cut_off()

    def _cut_off(self) -> None:
        """End the client's connection in the middle of its answer."""
        client, relay = self._client, self._relay
        self._client = None
        if client is not None and relay is not None:
            reset = relay.ends_with_connection()
            relay.stop_encoding()
            client.cut_off(reset=reset)

    def overdue(self, reason: Reason, now: float) -> None:
        """The breaker's clock has run out: waited in vain for a place, or for the first byte."""
        if reason is Reason.PATIENCE:
            self._services.goodness.failed(now)
            self._lose_patience(now)
            return
        client = self._client
        assert client is not None, "a queued exchange whose client left has been cancelled"
        retry_after_s = self._services.settings.retry_after_s
        if not self._answer_from_store(reason, now, 503, retry_after_s):
            if not self._request_complete():
                client.close_after_answer()
            took_s = took_so_far_s(self._services, self._began_at)
            refuse(self._services, client, self._parsed, reason, retry_after_s, took_s)
        self._finish(now)

    def _lose_patience(self, now: float) -> None:
        """The client gets what is stored. While that is decoded, the application may be faster."""
        services, parsed = self._services, self._parsed
        if self._client is None or self.answer_begun:
            return
        stored = last_resort(services, parsed, now)
        if stored is None:
            self._release(now)
            return
        shown = shown_to(services, parsed, stored)
        if shown is not None:
            self._answer_with(shown, Reason.PATIENCE, now)
        else:
            services.decoding.make(parsed.identity, stored, self._form_made)

    def _form_made(self, shown: StoredResponse | None) -> None:
        if shown is not None and self._client is not None and not self.answer_begun:
            self._answer_with(shown, Reason.PATIENCE, self._services.loop.time())

    def sweep(self, now: float) -> None:
        """Called about twenty times a second for exchanges older than HOLD_S."""
        if self._relay is not None and self._client is not None:
            self._look_at_answer(self._relay, now)
        if (
            self._blocked
            and self.stage is Stage.RECEIVING
            and now >= self._blocked_since + SLOW_READER_S
        ):
            self._services.breaker.detach(now, self._permit)
            start_waiting(self._services, now)
        if now >= self.deadline:
            upstream, self._upstream = self._upstream, None
            if upstream is not None:
                upstream.abandon()
            self._fail(UpstreamTimeout("no answer in time"), now)

    def _look_at_answer(self, relay: ResponseRelay, now: float) -> None:
        """Do what is due with an answer that comes in pieces."""
        services = self._services
        if relay.is_held:
            if relay.may_be_streamed(now):
                self._release(now)
            elif now >= self.started_at + services.settings.upstream_timeout_s:
                # The breaker's patience does not watch over it: the stored response was not to
                # spare the application work, or has come later.
                services.goodness.failed(now)
                if not self._answer_from_store(Reason.UPSTREAM_TIMEOUT, now, 504):
                    self._release(now)
        elif relay.drips(now) and last_resort(services, self._parsed, now) is not None:
            self.deadline = now  # it hangs: who asks again gets the stored response

    def _release(self, now: float) -> None:
        """Send what was held back of the answer, and stream the rest."""
        relay, client = self._relay, self._client
        if client is not None and relay is not None and relay.is_held:
            relay.release(client)
            self._tell_first_byte(now)

    def downstream_gone(self, now: float) -> None:
        """The client closed. The application goes on working, so its place stays taken."""
        if self._relay is not None:
            self._relay.stop_encoding()
        self._log_answer(Reason.CLIENT_GONE)
        self._services.counters.clients_gone += 1
        self._let_go(now)

    def client_failed(self, error: DownstreamError, now: float) -> None:
        """The rest of the request cannot be read: its client is told so, and not answered here."""
        self._services.counters.count_own(self._parsed.kind is _GET, error.reason, error.status)
        self._log(error.status, "retter", error.reason)
        self._let_go(now)

    def _let_go(self, now: float) -> None:
        """Nobody waits for the answer any more."""
        self._client = None
        if self._relay is not None:
            self._relay.drop_held()
        if self.stage is _DONE:
            self._relay = None
            return  # all was done but the compressing
        if self.stage is Stage.QUEUED:
            self._services.breaker.cancel(now, self._permit)
            self._finish(now)
        elif self.stage is Stage.CONNECTING:
            self._services.pool.unhold(self)
            self._outcome = Outcome.NEUTRAL
            self._finish(now)
        elif not self._request_complete() or self._streams():
            self._abandon(Outcome.NEUTRAL, now)
        elif self.stage is Stage.RECEIVING or self.deadline == float("inf"):
            self.downstream_writable()  # a lost connection resumes whoever waits for it

    def _streams(self) -> bool:
        if self._parsed.stream:
            return True
        return self.event_stream

    def shut_down(self, now: float) -> None:
        """RETTER ends, and with it what no client waits for any more."""
        self._abandon(Outcome.NEUTRAL, now)

    def _abandon(self, outcome: Outcome, now: float) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        if self._relay is not None:
            self._relay.drop_copy()
        self._outcome = outcome
        self._finish(now)

    # -- the end --------------------------------------------------------------------------------

    def _answer_from_store(
        self, reason: Reason, now: float, status: int, retry_after_s: float = 0.0
    ) -> bool:
        """Answer from the store, or let the client wait until what is stored is decoded for it.

        Args:
            status: Of the error that it gets, with `retry_after_s`, if that cannot be decoded.

        Returns:
            False if nothing is stored for this client.
        """
        services, client, parsed = self._services, self._client, self._parsed
        assert client is not None
        stored = last_resort(services, parsed, now)
        if stored is None:
            return False
        shown = shown_to(services, parsed, stored)
        if shown is not None:
            self._answer_with(shown, reason, now)
            return True
        waiter = AwaitedForm(
            services, client, parsed, reason, self._began_at, status, retry_after_s
        )
        if not waiter.wait_for(stored):
            return False
        self._client = None
        if self._relay is not None:
            self._relay.drop_held()
        self._answered(now)
        return True

    def _answer_with(self, shown: StoredResponse, reason: Reason, now: float) -> None:
        client = self._client
        assert client is not None
        if self._relay is not None:
            self._relay.drop_held()
        self._services.failed_page.note(self._parsed, client.forwarding.proto)
        took_s = took_so_far_s(self._services, self._began_at)
        answer_from_store(self._services, client, self._parsed, shown, reason, now, took_s)
        self._answered(now)

    def _store(self, pieces: list[bytes], head: ResponseHead, now: float) -> None:
        services, identity = self._services, self._parsed.identity
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        services.keeper.keep(
            identity, self._parsed.head, head, body, self._requested_at, now, self._permit.client
        )

    def _log_answer(self, reason: Reason) -> None:
        """Note what the application's answer has come to, if a client is there to get it."""
        relay = self._relay
        if relay is not None:
            self._log(relay.head.status if relay.begun else 0, "backend", reason, relay.body_bytes)
        else:
            self._log(0, "backend", reason)

    def _log(self, status: int, source: str, reason: Reason, sent: int = 0) -> None:
        log, client, parsed = self._services.access_log, self._client, self._parsed
        if log is not None and client is not None:
            who = client.forwarding.client_of(parsed.head)
            first_byte_s = self._relay.first_byte_s if self._relay is not None else None
            took_s = log.clock() - self._began_at
            log.add(
                who, parsed.head, parsed.identity, status, source, reason, took_s, sent,
                first_byte_s,
            )  # fmt: skip

    def _answered(self, now: float) -> None:
        """The client has its answer and is free for its next request."""
        if self._is_encoding() and self._client is not None:
            return  # when the last of it is compressed
        client, self._client = self._client, None
        if self.stage is _DONE:
            self._relay = None  # they refer to each other
        if self._upstream is not None and self.deadline == float("inf"):
            self.downstream_writable()  # nobody waits for this client any more
        if client is not None:
            client.exchange_done(now)

    def _finish(self, now: float) -> None:
        """Report the permit, store the answer, let the client and the next in the queue go on."""
        assert self.stage is not Stage.DONE, "an exchange ends once"
        if self.answer_begun and not self._is_encoding():
            self._log_answer(self._permit.reason)
        self._end_wait()
        queued = self.stage is Stage.QUEUED
        self.stage = Stage.DONE
        self._upstream = None
        services, permit = self._services, self._permit
        if self._body is not None:
            self._body.release()
        if self._relay is not None:
            self._relay.drop_held()
        services.exchanges.pop(self, None)
        services.streams.pop(self, None)
        permit.holder = None
        if not queued:
            services.breaker.finished(now, permit, self._outcome)
        if self._relay is not None and (pieces := self._relay.copy()) is not None:
            self._relay.drop_copy()
            try:
                self._store(pieces, self._relay.head, now)
            except MemoryError:
                free_memory(services)
        self._answered(now)
        if services.breaker.waiting:
            start_waiting(services, now)
