"""A number for a client, by which its requests are told from others' and are found no more.

A client is an address: an IPv4 address, or the first 64 bits of an IPv6 address, since whoever has
one has the rest of them too (RFC 6177). A session is none: one client may have any number of them.
"""

from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from typing import Final

# 56 bits: small numbers for the compiler, and no two clients of a site share one.
_NUMBER_BYTES: Final = 7
_IPV6_PREFIX_BYTES: Final = 8
# Clients at a time. A hit costs 0.1 us, a miss 5.
CLIENTS_REMEMBERED_MAX: Final = 4096
_ADDRESS_CHARACTERS_MAX: Final = 64  # a longer text is no address, and not to be remembered

UNKNOWN: Final = 0


class ClientIds:
    """Numbers of addresses: keyed hashes, so that none of them tells an address.

    Args:
        secret: Random, of the process.
    """

    def __init__(self, secret: bytes) -> None:
        self._hasher = blake2b(key=secret, digest_size=_NUMBER_BYTES, person=b"client")
        self._remembered = lru_cache(CLIENTS_REMEMBERED_MAX)(self._of_address)

    def of_address(self, address: str) -> int:
        """Return the number of an address; UNKNOWN (0) for what is none."""
        if len(address) > _ADDRESS_CHARACTERS_MAX:
            return UNKNOWN
        return self._remembered(address)

    def _of_address(self, text: str) -> int:
        network = _network_of(text)
        if not network:
            return UNKNOWN
        hasher = self._hasher.copy()
        hasher.update(network)
        return int.from_bytes(hasher.digest(), "big") or 1


@lru_cache(CLIENTS_REMEMBERED_MAX)
def mark_of(address: str) -> int:
    """Return Python's own hash of a client, to count clients by; of what is no address, of that."""
    return hash(_network_of(address) or address)


def _network_of(text: str) -> bytes:
    """Return what of an address is one client; b"" for what is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return b""
    prefix = address.packed
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        prefix = mapped.packed if mapped else prefix[:_IPV6_PREFIX_BYTES]
    return prefix
