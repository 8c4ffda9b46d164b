"""The memory of entries on disk that were read in this minute."""

from typing import Final

from retter.disk.change import crc32
from retter.store.packing import UnpackedSlot, bodies_of_packed
from retter.store.record import AGE, AGE_MAX, BODY, INCOMPLETE, NEVER, STORED_AT, SUPERSEDED, Record

HOT_BYTES_MAX: Final = 1024  # octets of a packed slot that is remembered

# An entry is copied to memory with its eighth read of a minute, its 64th, its 512th and so on. A
# copy costs as much as six reads. If an entry is evicted before it was read eight times more, many
# are read by turns, and each copy evicts another one.
READS_PER_COPY: Final = 8


class HotKey:
    """A key that was read in this minute.

    From its second read on, its only variant is remembered without the body. To compare the packed
    slot takes a tenth of the time that it takes to unpack it. While no transaction has changed the
    database, even that is not needed, and the body is where it was: LMDB writes to no page of its
    last transaction, and to none of a reader's. So the place of the body is remembered too.

    Attributes:
        reads: The number of reads so far.
        copy_at: The read with which it is copied to memory.
        data: The packed slot, if it is remembered.
        transaction: The last transaction of the database in which it was the same; -1: not known.
        place: Where the body is in the map. It may only be read within `transaction`.
        body_name: The name of the body.
        checksum: The CRC-32 of the body. It was verified when the slot was unpacked.
        before: The fields of the variant before the body.
        after: The fields of the variant after the body.
        marks: The marks of its owner.
        is_plain: It has one variant, which may answer any request that selects it.
        served_until: The remembered variant is too old after this time, monotonic seconds; NEVER if
            none is remembered.
    """

    __slots__ = (
        "after", "before", "body_name", "checksum", "copy_at", "data", "is_plain", "marks", "place",
        "reads", "served_until", "slot_key", "transaction",
    )  # fmt: skip

    def __init__(self, slot_key: bytes) -> None:
        self.slot_key = slot_key
        self.reads = 0
        self.copy_at = READS_PER_COPY
        self.data = b""
        self.transaction = -1
        self.place = memoryview(b"")
        self.body_name = b""
        self.checksum = 0
        self.marks: tuple[int, ...] = ()
        self.is_plain = False
        self.served_until = NEVER
        self.before: Record = ()
        self.after: Record = ()

    def remember(self, found: UnpackedSlot) -> None:
        """Remember a slot that was read; from the second read on with its variant, if it may be."""
        self.served_until, self.marks = NEVER, found.marks
        record = found.variants[0]
        self.is_plain = (
            len(found.variants) == 1 and not record[SUPERSEDED] and not record[INCOMPLETE]
        )
        if self.reads and self.is_plain and len(found.data) <= HOT_BYTES_MAX:
            self.before, self.after = record[:BODY], record[BODY + 1 :]
            self.body_name, _ = bodies_of_packed(found.data)[0]
            self.checksum = crc32(record[BODY])
            self.served_until = record[STORED_AT] + record[AGE_MAX] - record[AGE]
            self.data, self.transaction = found.data, -1

    def counted(self) -> bool:
        """Count a read; return whether the entry shall be copied to memory now."""
        reads = self.reads = self.reads + 1
        return (reads == self.copy_at and self.copied()) or not self.is_plain

    def copied(self) -> bool:
        """Note that the entry is copied to memory with this read; return True."""
        self.copy_at *= READS_PER_COPY
        return True
