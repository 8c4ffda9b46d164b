"""Who had the last good response to a page: what workers tell each other beside the database.

A refusal (404) withdraws a page at once if its client was the only one that got it lately
(proxy/withdrawals.py). The database does not say who that was: what is on a disk names no client.
So a worker notes it in the memory that all share, when it commits a page, and a worker that reads
the page finds it there. A note may be gone, or overwritten: then it is not known, as after a
restart.

    tag (8)  client (8)  stored at (8)  others at (8)  checksum (4), filled up to 8

The tag is Python's hash of key and variant, which is the same in all processes of one supervisor.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final
from zlib import crc32

from retter.base.shared_memory import SharedMemory
from retter.store.record import GIVEN_TO, OTHERS_AT, STORED_AT, VARIANT_KEY
from retter.store.write_behind import Slot, Written

_note = Struct("<qqdd")
_checksum = Struct("<Ixxxx")
NOTE_BYTES: Final = _note.size + _checksum.size

# Times on disk are those of the wall clock, and the loop's clock stands still during a callback,
# which may import modules. If two workers note two clients within this time, it is not known who.
SAME_S: Final = 1.0


class Given:
    """The notes of all workers, as one of them sees them."""

    def __init__(self, shared: SharedMemory, place: int) -> None:
        self._parts = shared.given
        self._own = shared.given[place]

    def note(self, slots: Mapping[bytes, Written]) -> None:
        """Note who had these pages, before they are committed. Called in the thread."""
        for key, waits in slots.items():
            for one in waits.slot:
                tag = hash((key, one[VARIANT_KEY]))
                note = _note.pack(tag, one[GIVEN_TO], one[STORED_AT], one[OTHERS_AT])
                at = self._at(tag)
                self._own[at : at + NOTE_BYTES] = note + _checksum.pack(crc32(note))

    def known(self, key: bytes, slot: Slot) -> Slot:
        """Return a slot that was read from the database, with who had its variants."""
        found = list(slot)
        for number, one in enumerate(slot):
            tag = hash((key, one[VARIANT_KEY]))
            at = self._at(tag)
            notes = [self._read(part[at : at + NOTE_BYTES]) for part in self._parts]
            fitting = [
                (client, others_at)
                for its_tag, client, stored_at, others_at in notes
                if its_tag == tag and abs(stored_at - one[STORED_AT]) <= SAME_S
            ]
            if len({client for client, _ in fitting}) == 1:
                client, others_at = max(fitting)
                found[number] = (*one[:GIVEN_TO], client, others_at, *one[OTHERS_AT + 1 :])
        return tuple(found)

    def _at(self, tag: int) -> int:
        return tag % (self._own.nbytes // NOTE_BYTES) * NOTE_BYTES

    def _read(self, part: memoryview) -> tuple[int, int, float, float]:
        note = bytes(part[: _note.size])
        if crc32(note) != _checksum.unpack_from(part, _note.size)[0]:
            return 0, 0, 0.0, 0.0  # half written: its checksum is that of another one
        return _note.unpack(note)
