"""What is remembered of an entry on disk that was read in this minute."""

from typing import Final

from retter.store.packing import UnpackedSlot, bodies_of_packed
from retter.store.record import AGE, AGE_MAX, BODY, STORED_AT, Record

HOT_BYTES_MAX: Final = 1024  # octets of a packed slot that is remembered


class HotKey:
    """A key that was read in this minute.

    From its second read on, its only variant is remembered without the body. To compare the packed
    slot takes a tenth of the time that it takes to unpack it. While no transaction has changed the
    database, even that is not needed.

    Attributes:
        data: The packed slot; empty if it is not remembered.
        transaction: The last transaction of the database in which it was the same.
        body: The name and the length of the body.
        marks: The marks of its owner.
        served_until: The variant is too old after this time, monotonic seconds.
    """

    __slots__ = (
        "_after", "_before", "body", "data", "marks", "reads", "served_until", "slot_key",
        "transaction",
    )  # fmt: skip

    def __init__(self, slot_key: bytes) -> None:
        self.slot_key = slot_key
        self.reads = 0
        self.data = b""
        self.transaction = -1
        self.body = b"", 0
        self.marks: tuple[int, ...] = ()
        self.served_until = 0.0
        self._before: Record = ()
        self._after: Record = ()

    def remember(self, found: UnpackedSlot) -> None:
        """Remember a slot if it is small and has one variant."""
        self.data = b""
        if len(found.data) <= HOT_BYTES_MAX and len(found.variants) == 1:
            record = found.variants[0]
            self._before, self._after = record[:BODY], record[BODY + 1 :]
            self.body = bodies_of_packed(found.data)[0]
            self.marks = found.marks
            self.served_until = record[STORED_AT] + record[AGE_MAX] - record[AGE]
            self.data, self.transaction = found.data, -1

    def with_body(self, body: bytes) -> tuple[Record, ...]:
        """Return the remembered variant with its body."""
        return ((*self._before, body, *self._after),)
