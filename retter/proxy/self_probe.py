"""Recovery without visitors: RETTER asks again for a page that failed.

An open circuit learns from probes that the application works again, and probes are visitors'
requests. Without visitors, it would stay open. So RETTER requests the last public page that had to
be answered from the store, at the probes' pace: with a GET without a cookie.
"""

from typing import Final

from retter.base.errors import DownstreamError
from retter.http.message import RequestHead
from retter.proxy.exchange import Exchange
from retter.proxy.services import Services

# Fields that are copied from the visitor's request: the answer may depend on them, and they
# identify nobody.
_FIELDS: Final = (b"accept", b"accept-encoding", b"accept-language")
_ADDRESS: Final = "127.0.0.1"


class SelfProbe:
    """Requests the failed page when the breaker wants a probe."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def tick(self, now: float) -> None:
        """Send a probe if one is due."""
        services, page = self._services, self._services.failed_page
        if page.head is None or not services.breaker.circuit.probe_wanted(now):
            return
        forwarding = services.peers.forwarding_fields(_ADDRESS, page.proto)
        memo = services.heads.request_memos[False, page.proto]
        try:
            parsed = services.heads.parse(_bare(page.head), False, memo, page.proto)
        except DownstreamError:
            page.head = None  # not a request that RETTER would send
            return
        identity = parsed.identity
        permit = services.breaker.probe(now, identity.route, identity.key)
        if permit is not None:
            entry = services.store.find(identity, parsed.head, now)
            exchange = Exchange(services, None, parsed, permit, entry, now, None, forwarding)
            # An application may show more to this machine than to strangers.
            exchange.keep_from_store()
            exchange.forward(now)


def _bare(page: RequestHead) -> bytes:
    """Return the head of a request for the same page, without fields that identify anybody."""
    fields = [(name, page.combined(name)) for name in _FIELDS]
    lines = [b"%b: %b\r\n" % (name, value) for name, value in fields if value]
    return b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (page.target, page.host, b"".join(lines))
