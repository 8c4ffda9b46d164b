"""Recovery without visitors: RETTER asks again for a page that failed.

An open circuit learns from probes that the application works again, and probes are visitors'
requests. Where nobody comes, it would stay open for as long. So the last public page that had to be
answered from the store is asked for again, at the probes' pace: a GET without a cookie.
"""

from typing import TYPE_CHECKING, Final

from retter.base.errors import DownstreamError
from retter.http.message import RequestHead
from retter.proxy.exchange import Exchange

if TYPE_CHECKING:
    from retter.proxy.proxy import ParsedRequest, Proxy

# What else of the visitor's request is asked with: the application may answer by it, but it names
# nobody.
_FIELDS: Final = (b"accept", b"accept-encoding", b"accept-language")
_ADDRESS: Final = "127.0.0.1"


class SelfProbe:
    """Remembers the page, and asks for it when the breaker wants it."""

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy
        self._page: RequestHead | None = None
        self._proto = b"http"

    def note(self, parsed: "ParsedRequest", proto: bytes) -> None:
        """The application failed this page, and it was answered from the store."""
        identity = parsed.identity
        if (not identity.owner or identity.public_key is not None) and parsed.head.host:
            self._page = parsed.head
            self._proto = proto

    def tick(self, now: float) -> None:
        """Ask, if it is time to."""
        proxy = self._proxy
        page = self._page
        if page is None or not proxy.breaker.probe_wanted(now):
            return
        forwarding = proxy.forwarding_fields(_ADDRESS, self._proto)
        try:
            parsed = proxy.parse(
                _bare(page), False, proxy.request_memo(False, self._proto), self._proto
            )
        except DownstreamError:
            self._page = None  # nothing that we would send ourselves
            return
        identity = parsed.identity
        permit = proxy.breaker.probe(now, identity.route, identity.key)
        if permit is not None:
            found = proxy.store.find(identity, parsed.head, now)
            exchange = Exchange(proxy, None, parsed, permit, found, now, None, forwarding)
            # An application may show more to this machine than to strangers.
            exchange.keep_from_store()
            exchange.forward(now)


def _bare(page: RequestHead) -> bytes:
    """Return the head of a request for the same page that says nothing of who asks."""
    fields = [(name, page.combined(name)) for name in _FIELDS]
    lines = [b"%b: %b\r\n" % (name, value) for name, value in fields if value]
    return b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (page.target, page.host, b"".join(lines))
