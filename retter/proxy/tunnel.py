"""A tunnel: after a 101, bytes flow in both directions (RFC 9110 section 7.8).

The tunnel ends when both sides have closed their sending direction. It replaces the exchange at
both connections. Each connection passes it the bytes that arrive, and reports backpressure and the
end. A tunnel occupies none of the application's slots.
"""

from retter.base.errors import Outcome, UpstreamError, UpstreamMalformed
from retter.base.reason import Reason
from retter.breaker import Kind, Permit
from retter.http.message import ResponseHead
from retter.proxy.holders import start_waiting
from retter.proxy.interfaces import Client
from retter.proxy.local_answers import log_request, took_so_far_s
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services
from retter.proxy.time_limits import STREAM_IDLE_S
from retter.proxy.upstream_connection import UpstreamConnection

_FOREVER = float("inf")


def check_upgrade(parsed: ParsedRequest, body: RequestBody | None) -> None:
    """Check that a 101 answers an upgrade request whose body has been received completely.

    The request's body comes before the first byte of the new protocol (RFC 9110 section 7.8).

    Raises:
        UpstreamMalformed: The request asked for no upgrade, or its body is incomplete.
    """
    if not parsed.head.upgrade or (body is not None and not body.complete):
        raise UpstreamMalformed("a 101 that was not asked for")


def open_tunnel(
    services: Services,
    client: Client,
    upstream: UpstreamConnection,
    parsed: ParsedRequest,
    permit: Permit,
    head: ResponseHead,
    data: bytes,
    began_at: float,
    now: float,
) -> None:
    """Send a 101 and the bytes that came after it, and let a tunnel take over.

    Args:
        data: The bytes that came after the head of the 101.
        began_at: When the request arrived, by the access log's clock.
    """
    permit.holder = None  # the exchange has left
    if head.set_cookies or head.clears_cookies:
        services.keeper.learn_cookies(parsed.identity, parsed.head, head, now)
    services.breaker.first_byte(now, permit)
    services.breaker.detach(now, permit)
    services.counters.count_forwarded(parsed.kind is Kind.GET, permit.reason, 101)
    client.out.write(head.forward + b"Via: 1.1 retter\r\n\r\n" + data)
    tunnel = Tunnel(services, client, upstream, parsed, permit, began_at, now)
    upstream.begin_tunnel(tunnel)
    client.begin_tunnel(tunnel, now)
    start_waiting(services, now)


class Tunnel:
    """Two connections, each of which sends the bytes that the other receives.

    Args:
        permit: Already detached from the circuit breaker; reported when the tunnel ends.
        began_at: When the request arrived, by the access log's clock.
    """

    def __init__(
        self,
        services: Services,
        client: Client,
        upstream: UpstreamConnection,
        parsed: ParsedRequest,
        permit: Permit,
        began_at: float,
        now: float,
    ) -> None:
        self._services = services
        self._client: Client | None = client
        self._upstream: UpstreamConnection | None = upstream
        self._parsed = parsed
        self._permit = permit
        self._began_at = began_at
        self._half_closed = False  # one direction has ended
        self._silence_s = STREAM_IDLE_S  # the longest time allowed between bytes
        self._deadline = now + STREAM_IDLE_S
        services.streams[self] = None

    # -- the application's side ---------------------------------------------------------------

    def upstream_data(self, data: bytes, now: float) -> None:
        """Forward bytes from the application to the client."""
        self._deadline = now + self._silence_s
        if self._client is not None:
            self._client.out.write(data)

    def upstream_eof(self, now: float) -> None:
        """The application has closed its sending direction."""
        if self._client is not None:
            self._client.out.write_eof()
        self._end_direction(now)

    def upstream_failed(self, error: UpstreamError, now: float) -> None:
        """The connection to the application is lost."""
        self._upstream = None
        self._end(self._permit.reason, now)

    def upstream_blocked(self) -> None:
        """The application does not read: stop reading from the client until it does."""
        settings = self._services.settings
        self._deadline = self._services.loop.time() + settings.upstream_body_timeout_s
        if self._client is not None:
            self._client.pause_body()

    def upstream_writable(self) -> None:
        """The application reads again."""
        self._deadline = self._services.loop.time() + self._silence_s
        if self._client is not None:
            self._client.resume_body()

    # -- the client's side --------------------------------------------------------------------

    def client_data(self, data: bytes, now: float) -> None:
        """Forward bytes from the client to the application."""
        self._deadline = now + self._silence_s
        if self._upstream is not None:
            self._upstream.write(data)

    def client_eof(self, now: float) -> None:
        """The client has closed its sending direction."""
        if self._upstream is not None:
            self._upstream.write_eof()
        self._end_direction(now)

    def client_gone(self, now: float) -> None:
        """The connection to the client is lost."""
        self._services.counters.clients_gone += 1
        self._end(Reason.CLIENT_GONE, now)

    def downstream_blocked(self) -> None:
        """The client does not read: stop reading from the application until it does."""
        if self._upstream is not None:
            self._upstream.pause_reading()
        self._deadline = _FOREVER  # the client's own time limit applies

    def downstream_writable(self) -> None:
        """The client reads again."""
        self._deadline = self._services.loop.time() + self._silence_s
        if self._upstream is not None:
            self._upstream.resume_reading()

    # -- the end ------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End the tunnel if it has been silent for too long. Called about once a second."""
        if now >= self._deadline:
            self._services.counters.upstream_errors[Reason.UPSTREAM_TIMEOUT] += 1
            self._end(Reason.UPSTREAM_TIMEOUT, now, cut=True)

    def abort_request(self, now: float) -> None:
        """End the tunnel: RETTER shuts down."""
        self._end(self._permit.reason, now)

    def _end_direction(self, now: float) -> None:
        """Keep the other direction open if it still is, with a shorter time limit for silence."""
        if self._half_closed:
            self._end(self._permit.reason, now)
            return
        self._half_closed = True
        self._silence_s = self._services.settings.upstream_body_timeout_s
        self._deadline = now + self._silence_s

    def _end(self, reason: Reason, now: float, *, cut: bool = False) -> None:
        """Close both connections. Bytes written to them are still delivered, unless `cut`."""
        client, self._client = self._client, None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.end_tunnel()
        if client is not None:
            took_s = took_so_far_s(self._services, self._began_at)
            log_request(self._services, client, self._parsed, 101, "backend", reason, took_s)
            if cut:
                client.abort()
            else:
                client.close()
        del self._services.streams[self]
        self._services.breaker.finished(now, self._permit, Outcome.NEUTRAL)
