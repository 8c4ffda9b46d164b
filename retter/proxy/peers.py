"""The peer of a client connection: whether it is trusted, and the number of its address."""

import os
from typing import Final

from retter.base.client_id import CLIENT_PREFIX, ClientIds, prefix_of
from retter.config.settings import Settings
from retter.http.forwarding import ForwardingFields, Trust
from retter.proxy.request import ParsedRequest

# Addresses whose fields are at hand for their next connection: a browser opens several at about the
# same time, and a proxy in front very many. Connections that share them hold 0.3 KB less each.
ADDRESSES_REMEMBERED_MAX: Final = 256


def _trust_of(settings: Settings) -> Trust:
    networks = [n for n in settings.trusted_proxies if not isinstance(n, str)]
    return Trust(networks, "unix:" in settings.trusted_proxies)


class Peers:
    """The facts about peers, for all connections of one process.

    Args:
        secret: Keys the numbers of clients.

    Attributes:
        ids: Numbers for addresses.
        instance: This process's own Via id.
        trust: Which peers are trusted proxies.
    """

    def __init__(self, settings: Settings, secret: bytes) -> None:
        self.ids = ClientIds(secret, settings.client_prefix)
        self._prefix = settings.client_prefix
        self.instance = os.urandom(6).hex().encode()
        self.trust = _trust_of(settings)
        self._latest: dict[tuple[str, bytes], ForwardingFields] = {}

    def configure(self, settings: Settings) -> None:
        """Use other settings. Open connections keep the earlier ones."""
        self.trust = _trust_of(settings)
        self._latest.clear()

    def forwarding_fields(self, peer: str, proto: bytes) -> ForwardingFields:
        """Return the fields that tell the application about a client connection."""
        latest = self._latest
        fields = latest.get((peer, proto))
        if fields is None:
            number = self.ids.of_address(peer)
            group = self._group_of(peer)
            fields = ForwardingFields(peer, proto, self.instance, self.trust, number, group)
            if len(latest) >= ADDRESSES_REMEMBERED_MAX:
                latest.clear()
            latest[peer, proto] = fields
        return fields

    def _group_of(self, peer: str) -> str:
        """Return what connections of a peer count for: the network that is one client.

        Who has one address of an IPv6 network has all of its addresses, and so could have any
        number of connections. A trusted proxy counts for itself.
        """
        is_one = ":" not in peer and self._prefix[0] == CLIENT_PREFIX[0]  # an IPv4 address
        if is_one or self.trust.trusts(peer):
            return peer
        return prefix_of(peer, self._prefix)

    def client_of(self, forwarding: ForwardingFields, parsed: ParsedRequest) -> int:
        """Return the number of the client that a request counts for; 0 if it is not known."""
        if not forwarding.trusted:
            return forwarding.number
        if parsed.client < 0:
            parsed.client = self.ids.of_address(forwarding.client_named(parsed.head))
        return parsed.client or forwarding.number
