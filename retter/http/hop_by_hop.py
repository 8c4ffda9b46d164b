"""Hop-by-hop fields: the fields of a head that concern one connection and are not forwarded.

RFC 9110 section 7.6.1 lists them, and Connection may name more.
"""

import re

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.message import Fields

# RFC 9110 section 7.6.1: fields that concern one connection. Upgrade is added again if it is meant
# for the application. Transfer-Encoding is rewritten because the body is framed anew.
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)

# Fields that a client must not be able to remove by naming them in Connection. Otherwise a client
# could remove credentials or the address from a request after a proxy in front has checked them.
_PROTECTED = frozenset(
    {
        b"host", b"cookie", b"set-cookie", b"authorization", b"via", b"forwarded", b"x-real-ip",
        b"cache-control", b"date", b"expect", b"location",
    }
)  # fmt: skip
_PROTECTED_PREFIXES = (b"content-", b"x-forwarded-")

# The lists whose members are processed one by one, by RETTER and by h11.
_LIST_LINES = re.compile(rb"\r\n(?:connection|te|upgrade|expect):([^\r]*+)", re.IGNORECASE)


def named_by_connection(fields: Fields) -> frozenset[bytes]:
    """Return the lower-case options of all Connection fields (RFC 9110 section 7.6.1)."""
    options: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            options.update(option.strip().lower() for option in value.split(b","))
    return frozenset(options)


def too_many_members(head: bytes) -> bool:
    """Whether the lists that decide about connection and upgrade have too many members."""
    if head.count(b",") < LIST_MEMBERS_MAX:
        return False
    lists: list[bytes] = _LIST_LINES.findall(head)
    return sum([value.count(b",") for value in lists]) >= LIST_MEMBERS_MAX


def stays_here(name: bytes, connection: frozenset[bytes]) -> bool:
    """Whether a field with this lower-case name ends at this hop."""
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


# Options of Connection that do not change the meaning of other fields.
SIMPLE_CONNECTION = frozenset({b"keep-alive", b"close"})


def names_a_field(connections: list[bytes], names: list[bytes]) -> bool:
    """Whether an option of Connection is the name of a present field, even of one named `Close`."""
    return any(option not in HOP_BY_HOP and option in names for option in connections)


def passed_protocols(value: bytes) -> bytes:
    """Return the protocols of an Upgrade field to which the two sides may switch through RETTER."""
    offers = [offer.strip() for offer in value.split(b",")]
    return b", ".join(
        [o for o in offers if o and not o.lower().startswith((b"h2", b"tls", b"http/2"))]
    )
