"""The second half of an exchange: a response that is not passed on in one plain step.

A delivery takes over from the exchange at both connections when the head has arrived. It exists
until the application's response is complete. It may detach its client earlier, when the client has
got a stored response or has left. The rest of the response then refreshes the store.

    response_data ... -> finish
    at any time: request_data, upstream_failed, overdue, sweep, downstream_gone, encoded
"""

from typing import Final

from retter.base.errors import (
    DownstreamError,
    InternalError,
    Outcome,
    UpstreamError,
    UpstreamReset,
    UpstreamTimeout,
    outcome_of,
)
from retter.base.reason import Reason
from retter.breaker import Kind, Permit, Phase, State
from retter.http.message import ResponseHead
from retter.proxy.goodness import Verdict
from retter.proxy.holders import start_waiting
from retter.proxy.interfaces import Client, Work
from retter.proxy.learning import judge, learn, learn_of_failure
from retter.proxy.local_answers import (
    StandIn,
    answer_failure,
    answer_impatiently,
    answer_instead,
    answer_with,
    log_request,
    note_client_failed,
    took_so_far_s,
)
from retter.proxy.relay import ResponseRelay
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services, free_memory
from retter.proxy.stored_choice import stale_for_error
from retter.proxy.time_limits import STREAM_IDLE_S, first_byte_wait_s
from retter.proxy.upstream_connection import Trailers, UpstreamConnection
from retter.store.record import BODY, Record
from retter.store.store import StoredResponse

# A response frees its slot if the client first stopped reading this long ago and does not read now.
# Its duration depends on the client only, and a few slow readers would keep all others out.
SLOW_READER_S: Final = 0.25

_FOREVER: Final = float("inf")
_OK: Final = Outcome.OK
_NEUTRAL: Final = Outcome.NEUTRAL


class Delivery(Work):
    """A response in transfer: holds the permit, the upstream connection and the client.

    Args:
        entry: The earlier stored response for the same request, to compare the new one with.
        began_at: When the request arrived, by the access log's clock.
        started_at: When the request left for the application (monotonic seconds).
    """

    deadline = _FOREVER  # for the application's next step, monotonic seconds
    _done = False
    _blocked = False  # the client does not read the response
    _blocked_since = _FOREVER  # when the client first stopped reading

    def __init__(
        self,
        services: Services,
        client: Client | None,
        upstream: UpstreamConnection | None,
        parsed: ParsedRequest,
        permit: Permit,
        entry: Record | None,
        body: RequestBody | None,
        head: ResponseHead,
        began_at: float,
        started_at: float,
    ) -> None:
        self._services = services
        self._client: Client | None = client
        self._upstream: UpstreamConnection | None = upstream
        self._parsed = parsed
        self._permit = permit
        self._entry = entry
        self._body = body  # of the request
        self._began_at = began_at
        self.started_at = started_at
        self._outcome = outcome_of(head.status, services.failure_statuses)
        self._relay = ResponseRelay(services, parsed, body, permit, head, self)
        # The longest time allowed between bytes of the response.
        self._silence_s = services.settings.upstream_body_timeout_s
        if parsed.stream or head.event_stream:
            self._silence_s = STREAM_IDLE_S
        permit.holder = self

    @property
    def stream(self) -> bool:
        return self._parsed.stream

    @property
    def url(self) -> bytes:
        return self._parsed.identity.url

    @property
    def event_stream(self) -> bool:
        """Whether it is an event stream."""
        return self._relay.head.event_stream

    @property
    def answer_begun(self) -> bool:
        return self._relay.begun

    @property
    def connected(self) -> bool:
        return self._upstream is not None

    # -- from the application -----------------------------------------------------------------

    def begin(self, body: bytes, complete: bool, trailers: Trailers, now: float) -> None:
        """Process the part of the body that came with the head; decide where the body goes."""
        services, parsed, relay = self._services, self._parsed, self._relay
        if self._body is not None and self._body.changes_person:
            services.keeper.learn_body(parsed.identity, parsed.head, now)
        if learn(services, parsed, self._permit, relay.head, self._outcome, self.started_at, now):
            relay.keep_copy(None if self._entry is None else self._entry[BODY])
        if self._outcome is not _OK and self._outcome is not _NEUTRAL:
            self._failed(Reason.UPSTREAM_STATUS, now)
        if complete:
            self._upstream = None  # it is in the pool, or another exchange already uses it
        else:
            if services.access_log is not None:
                relay.first_byte_s = took_so_far_s(services, self._began_at)
            if self._permit.phase is Phase.DETACHED:
                services.streams[self] = None
            else:
                services.exchanges[self] = None
            self._receive_on(relay, now)
        self._pass_on(relay, body, complete, trailers, now)

    def _failed(self, reason: Reason, now: float) -> None:
        """The response is a failure: send the stored one (stale-if-error, RFC 5861 section 4)."""
        learn_of_failure(self._services, self._parsed, self._permit, now)
        if self._client is not None and not self._relay.begun:
            self._answer_from_store(reason, now, 502)

    def _receive_on(self, relay: ResponseRelay, now: float) -> None:
        """The body will come in pieces: set its time limit, and withhold it or stream it."""
        services, parsed = self._services, self._parsed
        self.deadline = now + self._silence_s
        if relay.head.event_stream:
            relay.drop_copy()
            services.breaker.detach(now, self._permit)
            services.exchanges.pop(self, None)
            services.streams[self] = None
            start_waiting(services, now)
            if self._client is None:
                self.abort_request(now)  # there is no client any more
            return
        if relay.head.content_length > services.settings.store_object_bytes_max:
            relay.drop_copy()
        if parsed.stream or not parsed.identity.lookup:
            return
        relay.start_window(now)
        if self._client is not None and stale_for_error(services, parsed, now) is not None:
            closed = services.breaker.circuit.state is State.CLOSED
            relay.withhold(now, trouble=not closed or services.goodness.failed_lately(now))

    def response_data(self, data: bytes, complete: bool, trailers: Trailers, now: float) -> None:
        """Process a piece of the body."""
        relay = self._relay
        self.deadline = now + self._silence_s
        if complete:
            self._upstream = None  # it is in the pool
            if relay.ends_empty(data):
                relay.drop_copy()
                if relay.stop_withholding():
                    self._fail(UpstreamReset("ended with its head"), now)
                    return
        self._pass_on(relay, data, complete, trailers, now)

    def _pass_on(
        self, relay: ResponseRelay, data: bytes, complete: bool, trailers: Trailers, now: float
    ) -> None:
        if complete and self._outcome is _OK:
            self._judge(relay, data, now)
        relay.take(self._client, data, complete, trailers, now)
        if not relay.is_withheld:
            self._tell_first_byte(now)
        if self._done:
            return
        # Nobody needs the body: read it so that the application can finish, but not without limit.
        if relay.discarded_bytes > self._services.settings.store_object_bytes_max:
            self._read_no_further(now)
        elif complete:
            self._finish(now)

    def _judge(self, relay: ResponseRelay, data: bytes, now: float) -> None:
        """Judge the response when its last piece has come, before that piece is passed on."""
        services = self._services
        body = relay.whole(data)
        if body is None:
            return
        verdict = judge(services, self._parsed, self._entry, relay.head, body, now)
        if verdict is Verdict.GOOD:
            return
        relay.drop_copy()
        if verdict is Verdict.UNCLEAR:
            self._outcome = _NEUTRAL
        elif verdict is Verdict.FAILED:
            self._outcome = Outcome.ERROR
            services.counters.upstream_errors[Reason.FAILURE_TEXT] += 1
            self._failed(Reason.FAILURE_TEXT, now)

    def _tell_first_byte(self, now: float) -> None:
        """Report the first byte, which ends the breaker's patience timer.

        A withheld response is not reported: its head may be all that comes.
        """
        if self._permit.first_byte_at < 0:
            self._services.breaker.first_byte(now, self._permit)

    def upstream_blocked(self) -> None:
        """The application does not read the request: stop reading it from the client."""
        services = self._services
        self.deadline = services.loop.time() + services.settings.upstream_body_timeout_s
        if self._client is not None:
            self._client.pause_body()

    def upstream_writable(self) -> None:
        """The application reads again."""
        self.deadline = self._services.loop.time() + self._silence_s
        if self._client is not None:
            self._client.resume_body()

    def upstream_failed(self, error: UpstreamError, now: float) -> None:
        """The connection was lost, or the bytes on it were not a valid response."""
        self._upstream = None
        self._fail(error, now)

    # -- compression --------------------------------------------------------------------------

    def encoding(self) -> None:
        """The thread compresses a piece of the body: stop reading from the application."""
        if self._upstream is not None:
            self._upstream.pause_reading()

    def encoded(self, data: bytes, complete: bool) -> None:
        """Send compressed octets from the thread, or flushed ones."""
        if self._client is None:
            return
        self._relay.send_encoded(self._client, data)
        if complete:
            self._log_answer(self._permit.reason)
            self._answered(self._services.loop.time())
        elif self._upstream is not None and not self._blocked:
            self._upstream.resume_reading()

    def encoding_failed(self) -> None:
        """The response cannot be completed: the client must see that it is truncated."""
        self._log_answer(self._permit.reason)
        self._truncate()
        if not self._done:
            self.abort_request(self._services.loop.time())

    # -- from the client ----------------------------------------------------------------------

    def request_data(self, data: bytes, now: float) -> None:
        """Forward a piece of the request's body: the response began before it was complete."""
        body, upstream = self._body, self._upstream
        assert body is not None, "where it comes from"
        if upstream is None:
            return
        if body.complete:
            upstream.request_complete = True
            self.deadline = now + first_byte_wait_s(self._services.settings, self._parsed, 0)
        upstream.write(body.framed(data))

    def downstream_blocked(self) -> None:
        """The client does not read: stop reading the response until it does."""
        self.blocked_since(self._services.loop.time())
        if self._upstream is not None:
            self._upstream.pause_reading()
        self._relay.stop_window()

    def blocked_since(self, now: float) -> None:
        """Note since when the client does not read."""
        self.deadline = _FOREVER  # the client's own time limit applies
        self._blocked = True
        self._blocked_since = min(self._blocked_since, now)

    def downstream_writable(self) -> None:
        self._blocked = False
        now = self._services.loop.time()
        self.deadline = now + self._silence_s
        if self._relay.paced:
            self._relay.start_window(now)
        if self._upstream is not None and not self._relay.is_encoding():
            self._upstream.resume_reading()

    def downstream_gone(self, now: float) -> None:
        """The client has left. The application continues to work, so the slot stays occupied."""
        self._relay.stop_encoding()
        self._log_answer(Reason.CLIENT_GONE)
        counters = self._services.counters
        counters.clients_gone += 1
        if not (self._relay.begun or self.stream or self.event_stream):
            counters.count_given_up(self._parsed.kind is Kind.GET)
        self._detach_client(now)

    def client_failed(self, error: DownstreamError, now: float) -> None:
        note_client_failed(self._services, self._client, self._parsed, error, self._began_at)
        self._detach_client(now)

    def _detach_client(self, now: float) -> None:
        """Detach the client: nobody waits for the response any more."""
        self._client = None
        self._relay.stop_withholding()
        if self._done:
            return  # only the compression was not done yet
        if not self._is_worth_finishing():
            self.abort_request(now)
        else:
            self.downstream_writable()  # the client is lost, so its backpressure ends

    def _is_worth_finishing(self) -> bool:
        """Whether the application can finish its response without the client."""
        if self._body is not None and not self._body.complete:
            return False
        return not (self.stream or self.event_stream)

    # -- time limits ----------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        if self._client is not None:
            self._look_at_pace(self._relay, now)
        if self._blocked and not self._done and now >= self._blocked_since + SLOW_READER_S:
            self._services.breaker.detach(now, self._permit)
            start_waiting(self._services, now)
        if now >= self.deadline:
            self._abort_upstream()
            self._fail(UpstreamTimeout("no answer in time"), now)

    def _look_at_pace(self, relay: ResponseRelay, now: float) -> None:
        services = self._services
        if relay.is_withheld:
            if relay.may_be_streamed(now):
                self._release(now)
            elif now >= self.started_at + services.settings.upstream_timeout_s:
                # The breaker's patience does not limit this wait: the stored response was not for
                # saving the application work, or was stored later.
                learn_of_failure(services, self._parsed, self._permit, now)
                if not self._answer_from_store(Reason.UPSTREAM_TIMEOUT, now, 504):
                    self._release(now)
        elif relay.drips(now) and stale_for_error(services, self._parsed, now) is not None:
            self.deadline = now  # it hangs: the next request gets the stored response
        elif self._stands_still(now) and stale_for_error(services, self._parsed, now) is not None:
            # This client has a part of it, and may get the rest. Others shall not get a part.
            learn_of_failure(services, self._parsed, self._permit, now)

    def _stands_still(self, now: float) -> bool:
        """Whether nothing has come for as long as a whole response may take in good times.

        Of a body with a lowest rate, and from an application that is waited for.
        """
        if not self._relay.paced:
            return False
        settings = self._services.breaker.circuit.settings
        silent_s = now - (self.deadline - self._silence_s)
        return silent_s >= settings.patience_while_closed_s(self._permit.route.expected_s)

    def _release(self, now: float) -> None:
        """Send the withheld part of the response, and stream the rest."""
        if self._client is not None and self._relay.is_withheld:
            self._relay.release(self._client)
            self._tell_first_byte(now)

    def overdue(self, reason: Reason, now: float) -> None:
        """The breaker's patience is over: answer with the stored response."""
        learn_of_failure(self._services, self._parsed, self._permit, now)
        self.answer_impatiently(now)

    def answer_impatiently(self, now: float) -> None:
        """Answer with the stored response if nothing was sent yet; else hold nothing back."""
        services, client = self._services, self._client
        if client is None or self._relay.begun:
            return
        came = answer_impatiently(services, client, self._parsed, now, self._began_at, self._permit)
        if came is StandIn.NONE or came is StandIn.LATER:
            self._release(now)  # the application's response is there, and comes slowly
        elif came is StandIn.WRITTEN:
            self._stand_in(came, now)

    def form_made(self, shown: StoredResponse | None, now: float) -> None:
        """Answer with the response decoded for this client, if the client still waits."""
        client = self._client
        if client is None or self._relay.begun:
            return
        if shown is None:
            self._release(now)  # there is nothing else to wait for
        else:
            parsed, reason = self._parsed, Reason.PATIENCE
            answer_with(self._services, client, parsed, shown, reason, now, self._began_at)
            self._stand_in(StandIn.WRITTEN, now)

    # -- failures -----------------------------------------------------------------------------

    def _fail(self, error: UpstreamError, now: float) -> None:
        """The application has no valid response to this request."""
        services, client = self._services, self._client
        if (
            self._body is not None
            and self._body.stopped
            and isinstance(error, (UpstreamReset, UpstreamTimeout))
        ):
            # It may have waited for the rest of the body. That says nothing about it, as when a
            # client leaves its upload.
            services.counters.clients_gone += 1
            self._log_answer(Reason.CLIENT_GONE)
            self._truncate()
            self.abort_request(now)
            return
        self._outcome = error.outcome
        learn_of_failure(services, self._parsed, self._permit, now)
        self._relay.drop_copy()
        services.counters.upstream_errors[error.reason] += 1
        if client is not None and self._relay.begun:
            self._log_answer(error.reason)
            self._truncate()
        elif client is not None:
            came = answer_failure(
                services, client, self._parsed, self._body, error.reason, now, self._began_at,
                error.status,
            )  # fmt: skip
            self._stand_in(came, now)
        if not self._done:
            self._finish(now)

    def broken(self, now: float) -> None:
        """Fail after an internal error: free the client and the slot."""
        self._abort_upstream()
        if not self._done:
            self._fail(InternalError("no memory, or a fault of our own"), now)
        elif self._client is not None:
            self._truncate()

    def _truncate(self) -> None:
        """Close the client's connection in the middle of its response."""
        client, self._client = self._client, None
        if client is not None:
            reset = self._relay.ends_with_connection()
            self._relay.stop_encoding()
            client.close_midway(reset=reset)

    def _answer_from_store(self, reason: Reason, now: float, status: int) -> bool:
        """Answer from the store (`answer_instead`); False if nothing is stored for the client."""
        client = self._client
        assert client is not None
        came = answer_instead(
            self._services, client, self._parsed, reason, now, self._began_at, status
        )
        self._stand_in(came, now)
        return came is not StandIn.NONE

    def _stand_in(self, came: StandIn, now: float) -> None:
        """Detach the client: it has got a stored response, or gets one when that is decoded."""
        if came is StandIn.NONE:
            return
        self._relay.stop_withholding()
        if came is StandIn.AWAITED:
            self._client = None
        self._answered(now)

    # -- the end --------------------------------------------------------------------------------

    def abort_request(self, now: float) -> None:
        self._outcome = _NEUTRAL
        self._read_no_further(now)

    def _read_no_further(self, now: float) -> None:
        self._abort_upstream()
        self._relay.drop_copy()
        self._finish(now)

    def _abort_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.discard()

    def _log_answer(self, reason: Reason) -> None:
        """Log the application's response, if a client is there to receive it."""
        services, client, relay = self._services, self._client, self._relay
        if client is not None:
            log_request(
                services, client, self._parsed, relay.head.status if relay.begun else 0,
                "backend", reason, took_so_far_s(services, self._began_at),
                relay.body_bytes, relay.first_byte_s,
            )  # fmt: skip

    def _answered(self, now: float) -> None:
        """Detach the client: it has its response and is free for its next request."""
        if self._relay.is_encoding() and self._client is not None:
            return  # called again when the last piece is compressed
        client, self._client = self._client, None
        if self._done:
            self._relay.forget_encoder()  # they refer to each other
        if self._upstream is not None and self.deadline == _FOREVER:
            self.downstream_writable()  # the client's backpressure ends
        if client is not None:
            client.exchange_done(now)

    def _finish(self, now: float) -> None:
        """Report the permit, store the response, and let the client and the queue continue."""
        assert not self._done, "a delivery ends once"
        services, permit, relay = self._services, self._permit, self._relay
        if relay.begun and not relay.is_encoding():
            self._log_answer(permit.reason)
        self._done = True
        self._upstream = None
        if self._body is not None:
            self._body.release()
        relay.stop_withholding()
        services.exchanges.pop(self, None)
        services.streams.pop(self, None)
        permit.holder = None
        services.breaker.finished(now, permit, self._outcome)
        if (body := relay.copy()) is not None:
            relay.drop_copy()
            parsed = self._parsed
            try:
                services.keeper.keep(
                    parsed.identity, parsed.head, relay.head, body, self.started_at, now,
                    permit.client,
                )  # fmt: skip
            except MemoryError:
                free_memory(services)
        self._answered(now)
        if services.breaker.waiting:
            start_waiting(services, now)
