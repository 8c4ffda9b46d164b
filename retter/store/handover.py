"""The handover of stored responses to another process on this machine, as octets and back.

One slot is a key with all its variants, packed as for a disk (packing.py). Beside it are the facts
that a disk does not keep: whether a response may be on disk at all, and which clients got it.
Bodies are sent before the slot, in pieces, each body once. Times are monotonic seconds, which are
the same for all processes of a machine.

This module does no I/O.
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from struct import error as StructError
from typing import Final

from retter.base.frames import PAYLOAD_BYTES_MAX
from retter.store.packing import pack, unpack
from retter.store.record import NO_STORE, Record, as_stored
from retter.store.write_behind import Found

# To copy one piece takes 50 us.
PIECE_BYTES: Final = 256 * 1024

_piece = Struct("<QQ")  # the number of the body, and its length
_number = Struct("<Q8x")  # instead of a body's hash
_slot = Struct("<BB")  # the number of variants; whether the slot must be written to disk
_beside = Struct("<?qqd")  # no-store, stored by, given to, others at


class SlotWriter:
    """Makes pieces of bodies and packed slots.

    Args:
        remembers: Each body is sent only once; otherwise once for each slot.
    """

    def __init__(self, *, remembers: bool = True) -> None:
        self._remembers = remembers
        # By id. The body itself is kept too, so that no other object gets the same id.
        self._numbers: dict[int, tuple[int, bytes]] = {}
        self._sent = 0

    def write(
        self,
        key: bytes,
        slot: Iterable[Record],
        marks: tuple[int, ...],
        now: float,
        *,
        for_disk: bool = False,
    ) -> Iterator[tuple[bool, bytes]]:
        """Yield (False, a piece of a body) for each piece, and finally (True, the slot).

        An empty slot means that the key is removed. A slot whose heads are too large for one frame
        is omitted.

        Args:
            for_disk: The other process must write the slot to disk.
        """
        records = tuple(slot)
        if not records:
            yield True, _slot.pack(0, for_disk) + key
            return
        new: list[tuple[int, bytes]] = []

        def number_of(body: bytes) -> bytes:
            known = self._numbers.get(id(body))
            if known is None:
                self._sent += 1
                known = self._numbers[id(body)] = (self._sent, body)
                new.append(known)
            return _number.pack(known[0])

        keepable = tuple([(*one[:NO_STORE], False, *one[NO_STORE + 1 :]) for one in records])
        packed = pack(key, keepable, marks, now, now, number_of)
        beside = b"".join(
            [
                _beside.pack(one.no_store, one.stored_by, one.given_to, one.others_at)
                for one in map(as_stored, records)
            ]
        )
        data = _slot.pack(len(records), for_disk) + beside + packed.data
        if len(packed.bodies) == len(records) and len(data) <= PAYLOAD_BYTES_MAX:
            for number, body in new:
                for at in range(0, len(body) or 1, PIECE_BYTES):
                    yield False, _piece.pack(number, len(body)) + body[at : at + PIECE_BYTES]
            yield True, data
        else:
            for _, body in new:
                del self._numbers[id(body)]
        if not self._remembers:
            self._numbers.clear()


class SlotReader:
    """Reads pieces and slots, and makes stored responses of them.

    Args:
        remembers: The same as for the writer.
    """

    def __init__(self, *, remembers: bool = True) -> None:
        self._remembers = remembers
        self._bodies: dict[int, bytes] = {}
        self._pieces: list[bytes] = []
        self._number = 0
        self._missing = 0

    def take_piece(self, payload: bytes) -> None:
        """Read a piece of a body.

        Raises:
            ValueError: It is no piece, or it does not continue the previous one.
        """
        try:
            number, length = _piece.unpack_from(payload)
        except StructError:
            raise ValueError("no piece of a body") from None
        piece = payload[_piece.size :]
        if not self._missing:
            self._number, self._missing, self._pieces = number, length, []
        if number != self._number or len(piece) > self._missing or number in self._bodies:
            raise ValueError("a piece of another body")
        self._pieces.append(piece)
        self._missing -= len(piece)
        if not self._missing:
            self._bodies[number] = b"".join(self._pieces)
            self._pieces = []

    def take_slot(
        self, payload: bytes, now: float, max_stale_s: float
    ) -> tuple[bytes, Found, bool]:
        """Return a key, its entries that may be served, and whether to write them to disk.

        Args:
            max_stale_s: The maximum age of entries that may be served.

        Raises:
            ValueError: It is no slot, or one of its bodies is missing.
        """
        bodies = self._bodies
        if not self._remembers:
            self._bodies = {}
        try:
            count, for_disk = _slot.unpack_from(payload)
            if not count:
                return payload[_slot.size :], Found((), ()), bool(for_disk)
            at = _slot.size + count * _beside.size
            beside = [
                _beside.unpack_from(payload, _slot.size + number * _beside.size)
                for number in range(count)
            ]
        except StructError:
            raise ValueError("no slot") from None
        unpacked = unpack(payload[at:], now, now, max_stale_s)
        if unpacked is None or len(unpacked.variants) != count:
            raise ValueError("no slot")
        records: list[Record] = []
        for one, length, rest in zip(unpacked.variants, unpacked.body_lengths, beside, strict=True):
            body = bodies.get(_number.unpack(one.body)[0])
            if body is None or len(body) != length:
                raise ValueError("a body is missing")
            no_store, stored_by, given_to, others_at = rest
            whole = one._replace(
                body=body,
                no_store=no_store,
                stored_by=stored_by,
                given_to=given_to,
                others_at=min(others_at, now),
            )
            if 0 <= whole.age_max_s >= whole.age(now):
                records.append(tuple(whole))
        return unpacked.key, Found(tuple(records), unpacked.marks), bool(for_disk)
