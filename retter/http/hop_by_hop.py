"""Hop-by-hop fields: what of a head concerns one connection and is not passed on.

RFC 9110 section 7.6.1 names them, and lets Connection name more.
"""

import re

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.message import Fields

# RFC 9110 section 7.6.1: fields that concern one connection. Upgrade is put back when it is meant
# for the application; Transfer-Encoding is rewritten because the body is framed anew.
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)

# What a client must not be able to remove by naming it in Connection: that trick takes the
# credentials or the address away from the request after someone in front has checked them.
_PROTECTED = frozenset(
    {
        b"host", b"cookie", b"set-cookie", b"authorization", b"via", b"forwarded", b"x-real-ip",
        b"cache-control", b"date", b"expect", b"location",
    }
)  # fmt: skip
_PROTECTED_PREFIXES = (b"content-", b"x-forwarded-")

# The lists whose members are looked at one by one, by us and by h11.
_LIST_LINES = re.compile(rb"\r\n(?:connection|te|upgrade|expect):([^\r]*+)", re.IGNORECASE)


def named_by_connection(fields: Fields) -> frozenset[bytes]:
    """Return the lower-case options of all Connection fields (RFC 9110 section 7.6.1)."""
    options: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            options.update(option.strip().lower() for option in value.split(b","))
    return frozenset(options)


def too_many_members(head: bytes) -> bool:
    """Whether the lists that decide about connection and upgrade have more than are looked at."""
    if head.count(b",") < LIST_MEMBERS_MAX:
        return False
    lists: list[bytes] = _LIST_LINES.findall(head)
    return sum([value.count(b",") for value in lists]) >= LIST_MEMBERS_MAX


def stays_here(name: bytes, connection: frozenset[bytes]) -> bool:
    """Whether a field of that lower-case name ends at this hop."""
    if name in HOP_BY_HOP:
        return True
    if name not in connection:
        return False
    return name not in _PROTECTED and not name.startswith(_PROTECTED_PREFIXES)


def keeps_alive(connection: frozenset[bytes], http11: bool) -> bool:
    """Whether a connection persists after a message with these options (RFC 9112 section 9.3)."""
    if b"close" in connection:
        return False
    return http11 or b"keep-alive" in connection


# Options of Connection that bear on nothing else in the head.
SIMPLE_CONNECTION = frozenset({b"keep-alive", b"close"})


def names_a_field(connections: list[bytes], names: list[bytes]) -> bool:
    """Whether an option of Connection is the name of a field that is there, even of `Close`."""
    return any(option not in HOP_BY_HOP and option in names for option in connections)


def passed_protocols(value: bytes) -> bytes:
    """Return those protocols of an Upgrade field that the two sides may change to here."""
    offers = [offer.strip() for offer in value.split(b",")]
    return b", ".join(
        [o for o in offers if o and not o.lower().startswith((b"h2", b"tls", b"http/2"))]
    )
