"""Tickets: who found no place and comes again is told from who comes for the first time.

A ticket says when its holder tried first, under a MAC that binds it to the holder's address: it
cannot be made up, made older, or used from elsewhere. It is good for one place. So that it cannot
be used twice, tickets are numbered, and of each number it is remembered whether it is used up: one
bit, for the last TICKETS_MAX of them. An older one is worth nothing, as one that has expired.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final, NamedTuple

TICKET_S: Final = 120.0  # how long a ticket is good: who comes later has gone away meanwhile
# Tickets that can be told apart: what is issued to 4,000 a second in TICKET_S. 64 KiB, when the
# first is issued.
TICKETS_MAX: Final = 1 << 19
TICKET_BYTES: Final = 32  # as it stands in the cookie

_TICK_S: Final = 0.1  # the grain of the time in it
_MAC_BYTES: Final = 16
_body = Struct(">II")  # time, number


class Ticket(NamedTuple):
    """A ticket that is good."""

    number: int
    since: float  # when its holder tried first


class Tickets:
    """Issues tickets and knows which are used up, or stand in the line just now.

    Args:
        secret: Of this process: another one's tickets are worth nothing here.
        now: Monotonic seconds; no ticket is older.
    """

    __slots__ = ("_began_at", "_issued", "_key", "_spent", "_standing")

    def __init__(self, secret: bytes, now: float) -> None:
        self._key = secret
        self._began_at = now
        self._issued = 0
        self._spent = bytearray()  # a bit for each number
        self._standing: set[int] = set()

    def issue(self, client: int, now: float) -> bytes:
        """Return a new ticket for a client."""
        if not self._spent:
            self._spent = bytearray(TICKETS_MAX // 8)
        number = self._issued
        self._issued += 1
        bit = number % TICKETS_MAX
        self._spent[bit >> 3] &= ~(1 << (bit & 7)) & 0xFF
        ticks = int((now - self._began_at) / _TICK_S)
        body = _body.pack(ticks & 0xFFFFFFFF, number & 0xFFFFFFFF)
        return urlsafe_b64encode(body + self._mac(body, client))

    def read(self, text: bytes, client: int, now: float) -> Ticket | None:
        """Return the ticket if it is this client's, has not expired and is not used up."""
        if len(text) != TICKET_BYTES:
            return None
        try:
            raw = urlsafe_b64decode(text)
        except NotBase64:
            return None
        body, mac = raw[: _body.size], raw[_body.size :]
        if not compare_digest(mac, self._mac(body, client)):
            return None
        if urlsafe_b64encode(raw) != text:
            return None  # there is one form of each
        ticks, number = _body.unpack(body)
        since = self._began_at + ticks * _TICK_S
        if now - since > TICKET_S or not self._is_remembered(number) or self._is_spent(number):
            return None
        return Ticket(number, since)

    def stand(self, number: int) -> bool:
        """Take it into the line; False if it stands there already, or is used up."""
        if number in self._standing or self._is_spent(number):
            return False
        self._standing.add(number)
        return True

    def stands(self, number: int) -> bool:
        """Say whether it stands in the line."""
        return number in self._standing

    def leave(self, number: int) -> None:
        """Its holder has left the line without a place."""
        self._standing.discard(number)

    def spend(self, number: int) -> None:
        """Its holder has got a place."""
        self._standing.discard(number)
        bit = number % TICKETS_MAX
        if self._is_remembered(number):
            self._spent[bit >> 3] |= 1 << (bit & 7)

    def _is_remembered(self, number: int) -> bool:
        return self._issued - TICKETS_MAX <= number < self._issued

    def _is_spent(self, number: int) -> bool:
        bit = number % TICKETS_MAX
        return bool(self._spent[bit >> 3] & (1 << (bit & 7)))

    def _mac(self, body: bytes, client: int) -> bytes:
        mac = blake2b(body, key=self._key, digest_size=_MAC_BYTES, person=b"ticket")
        mac.update(b"%d" % client)
        return mac.digest()
