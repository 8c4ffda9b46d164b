"""Tickets: they identify a client that found no place and comes again.

A ticket contains the time of its holder's first try. A MAC binds it to the holder's address. So it
cannot be invented, made older, or used from another address.

A ticket is valid for one place. To prevent a second use, tickets have numbers, and one bit for each
of the last TICKETS_MAX numbers remembers whether the ticket is used. A ticket with an older number
is not valid, like an expired one.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from struct import Struct
from typing import Final, NamedTuple

from retter.base.hashing import blake2b

TICKET_S: Final = 120.0  # how long a ticket is valid: a client that comes later had given up
# Numbers that are remembered: the tickets issued in TICKET_S at 4,000 a second. They need 64 KiB,
# allocated when the first ticket is issued.
TICKETS_MAX: Final = 1 << 19
TICKET_BYTES: Final = 32  # its length in the cookie

_TICK_S: Final = 0.1  # the resolution of the time in it
_MAC_BYTES: Final = 16
_body = Struct(">II")  # time, number


class Ticket(NamedTuple):
    """A valid ticket."""

    number: int
    since: float  # when its holder tried first


class Tickets:
    """Issues tickets and knows which ones are used, and which ones wait in the queue now.

    Args:
        secret: The key of this process: tickets made with another key are not valid here.
        now: Monotonic seconds; no ticket is older.
    """

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
        return self._ticket(number, client, now)

    def _ticket(self, number: int, client: int, now: float) -> bytes:
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
        try:
            from hmac import compare_digest  # with OpenSSL's digests, which nobody else needs
        except OSError:
            return None  # no descriptor is left to read it with
        if not compare_digest(mac, self._mac(body, client)):
            return None
        if urlsafe_b64encode(raw) != text:
            return None  # only one text is valid for each ticket
        ticks, number = _body.unpack(body)
        since = self._began_at + ticks * _TICK_S
        if now - since > TICKET_S or not self._is_remembered(number) or self._is_spent(number):
            return None
        return Ticket(number, since)

    def claim(self, number: int) -> bool:
        """Take a ticket for the request that is decided now; return False if it is in use."""
        return not self.stands(number) and not self._is_spent(number)

    def stand(self, number: int) -> bool:
        """Add a ticket to the queue; return False if it is there already, or is used."""
        if number in self._standing or self._is_spent(number):
            return False
        self._standing.add(number)
        return True

    def stands(self, number: int) -> bool:
        """Return whether a ticket is in the queue."""
        return number in self._standing

    def leave(self, number: int) -> None:
        """Record that the holder left the queue without a place."""
        self._standing.discard(number)

    def spend(self, number: int) -> None:
        """Record that the holder got a place: the ticket is used."""
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
