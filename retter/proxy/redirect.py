"""A plain listener that sends its clients to https (`--https-redirect`)."""

import re

from retter.base.errors import BadRequest
from retter.base.reason import Reason
from retter.breaker import Kind
from retter.http.memo import HeadMemo
from retter.http.message import Framing
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.client_requests import ClientRequests, Requester
from retter.proxy.request import ParsedRequest

# RFC 8555 section 8.3: an issuer of certificates requests this path by plain http. It ends with one
# segment of unreserved characters, as every token is. An application removes dot segments, decodes
# `%2e` and joins slashes, each in its own way: a path with any of these may lead to another page,
# and so goes to https like all others.
_ACME_TARGET = re.compile(
    rb"/\.well-known/acme-challenge/(?!\.{1,2}(?:\?|\Z))[-.~_0-9A-Za-z]+(?:\?.*)?"
)

_PORT = re.compile(rb":[0-9]*$")


def _nowhere_to_go() -> BadRequest:
    """Return the error for an HTTP/1.0 request that names no host: it cannot be redirected."""
    return BadRequest("a Host field is needed here: the site is served by https alone")


class RedirectingRequests(ClientRequests):
    """Answers requests over http with a redirect to https."""

    __slots__ = ()

    def begin(self, connection: Requester, parsed: ParsedRequest, now: float) -> None:
        if self._stays(connection, parsed):
            super().begin(connection, parsed, now)
            return
        if not parsed.head.host:
            connection.refuse(_nowhere_to_go())
            return
        self._redirect(connection, parsed)
        if connection.last:
            connection.end()
        else:
            connection.deadline = now + self._services.settings.keep_alive_s

    def begin_with_body(
        self, connection: Requester, parsed: ParsedRequest, rest: bytes, now: float
    ) -> bytes:
        if self._stays(connection, parsed):
            return super().begin_with_body(connection, parsed, rest, now)
        if not parsed.head.host:
            connection.refuse(_nowhere_to_go())
            return b""
        connection.last = True  # its body is not read
        self._redirect(connection, parsed)
        connection.end(sending=True)
        return b""

    def _stays(self, connection: Requester, parsed: ParsedRequest) -> bool:
        head = parsed.head
        if not self._services.settings.https_redirect:
            return True  # not any more
        if head.host and _ACME_TARGET.fullmatch(head.target):
            return True
        # Behind a trusted proxy that the client has reached by https.
        proto = head.first(b"x-forwarded-proto") if connection.forwarding.trusted else None
        return proto is not None and proto.lower() == b"https"

    def _redirect(self, connection: Requester, parsed: ParsedRequest) -> None:
        services, head = self._services, parsed.head
        self.count_request(connection)
        port = services.settings.https_redirect
        host = _PORT.sub(b"", head.host)
        # RFC 9112 section 3.2.4: `*` stands for a URI without a path.
        path = b"" if head.target == b"*" else head.target
        # 308 keeps the method and its body (RFC 9110 section 15.4.9); 301 is known to everything
        # that sends GET.
        line = b"301 Moved Permanently"
        if head.method not in (b"GET", b"HEAD") or head.framing is not Framing.NONE:
            line = b"308 Permanent Redirect"
        location = b"https://%b%b%b" % (host, b"" if port == 443 else b":%d" % port, path)
        connection.out.write(
            b"HTTP/1.1 %b\r\nDate: %b\r\nLocation: %b\r\nContent-Length: 0\r\nVia: 1.1 retter\r\n"
            b"%b\r\n"
            % (line, services.http_date().encode(), location, connection.begin_answer(head).value)
        )
        status = int(line[:3])
        services.counters.count_own(parsed.kind is Kind.GET, Reason.HTTPS_REDIRECT, status)
        if services.access_log is not None:
            services.access_log.add(
                connection.forwarding.client_of(head),
                head,
                parsed.identity,
                status,
                "retter",
                Reason.HTTPS_REDIRECT,
                0.0,
            )


class RedirectingConnection(DownstreamConnection):
    """A connection of a plain listener."""

    __slots__ = ()

    def _make_requests(self, memo: HeadMemo[ParsedRequest]) -> ClientRequests:
        self._redirects = True
        return RedirectingRequests(self._services, memo, self._proto)
