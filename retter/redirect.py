"""A plain listener that sends its clients to https (`--https-redirect`)."""

import re
from typing import TYPE_CHECKING

from retter.breaker import Kind
from retter.downstream import DownstreamConnection
from retter.message import Framing
from retter.reason import Reason

if TYPE_CHECKING:
    from retter.proxy import ParsedRequest

# RFC 8555 section 8.3: whoever gives out certificates asks here by plain http.
ACME_PATH = b"/.well-known/acme-challenge/"

_PORT = re.compile(rb":[0-9]*$")


class RedirectingConnection(DownstreamConnection):
    """Answers what is not https with where it is to be had."""

    __slots__ = ()

    def _begin(self, parsed: "ParsedRequest", now: float) -> None:
        if self._stays(parsed):
            super()._begin(parsed, now)
            return
        self._redirect(parsed)
        if self._close:
            self._end()
        else:
            self.deadline = now + self._proxy.settings.keep_alive_s

    def _begin_with_body(self, parsed: "ParsedRequest", rest: bytes, now: float) -> bytes:
        if self._stays(parsed):
            return super()._begin_with_body(parsed, rest, now)
        self._close = True  # its body is not read
        self._redirect(parsed)
        self._end(sending=True)
        return b""

    def _stays(self, parsed: "ParsedRequest") -> bool:
        head = parsed.head
        if not self._proxy.settings.https_redirect:
            return True     # not any more
        if head.target.startswith(ACME_PATH) or not head.host or not head.target.startswith(b"/"):
            return True
        # A trusted proxy in front that has spoken https with the client itself.
        proto = head.first(b"x-forwarded-proto") if self.forwarding.trusted else None
        return proto is not None and proto.lower() == b"https"

    def _redirect(self, parsed: "ParsedRequest") -> None:
        proxy, head = self._proxy, parsed.head
        self._count_request()
        port = proxy.settings.https_redirect
        host = _PORT.sub(b"", head.host)
        # 308 keeps the method and its body (RFC 9110 section 15.4.9); 301 is known to everything
        # that sends GET.
        line = b"301 Moved Permanently"
        if head.method not in (b"GET", b"HEAD") or head.framing is not Framing.NONE:
            line = b"308 Permanent Redirect"
        location = b"https://%b%b%b" % (host, b"" if port == 443 else b":%d" % port, head.target)
        self.write(
            b"HTTP/1.1 %b\r\nDate: %b\r\nLocation: %b\r\nContent-Length: 0\r\nVia: 1.1 retter\r\n"
            b"%b\r\n"
            % (line, proxy.http_date().encode(), location, self.persistence(head).value)
        )  # fmt: skip
        status = int(line[:3])
        proxy.counters.count_own(parsed.kind is Kind.GET, Reason.HTTPS_REDIRECT, status)
        if proxy.access_log is not None:
            proxy.access_log.add(
                self.forwarding.client_of(head), head, parsed.identity, status, "retter",
                Reason.HTTPS_REDIRECT, 0.0,
            )  # fmt: skip
