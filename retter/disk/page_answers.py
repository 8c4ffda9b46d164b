"""What is stored near each worker, told to the one that lists the pages of all.

A page that a worker has stored is not in the database yet, or never will be. So the worker that
lists pages asks the others in its ring of answers, and each of them tells in its own ring the pages
near it: first those that are not in the database, then the newest. One message is enough: it has
room for several hundred pages, and a page is not in the database for some seconds at most.

    asker (8)  number (8)  flags (1), filled up to 8  question, or answer as JSON

The number of a question is negative, because the others in this ring are not (purge_answers.py).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from struct import Struct
from typing import Any, Final, NamedTuple

from retter.base.ring import RingReader, RingWriter
from retter.base.shared_memory import SharedMemory
from retter.disk.purge_answers import ALIVE_S, GATHER_S
from retter.store.policy import key_parts
from retter.store.record import AGE_MAX, BODY, STATUS, STORED_AT, SUPERSEDED, WITHDRAWN, Record
from retter.store.write_behind import Slot

_head = Struct("<qqBxxxxxxx")
_ASKS: Final = 4
_ANSWERS: Final = 8

# Pages that a worker tells at most: as many as have room in one message.
ROWS_MAX: Final = 512

# Pages that are not in the database, told by their keys so that none counts twice: 35 KB. Of
# further ones, only the number is told.
ALONE_MAX: Final = 512

_OWNERS: Final[tuple[bool | None, ...]] = (None, False, True)


class Wanted(NamedTuple):
    """The pages that an operator looks for."""

    search: bytes = b""  # a part of the URL
    private: bool | None = None  # of one owner, or of everyone

    def fits(self, key: bytes) -> bool:
        """Return whether a key is wanted."""
        owner, url = key_parts(key)
        return self.search in url and self.private in (None, bool(owner))


class Row(NamedTuple):
    """A page as an operator sees it: no owner is named."""

    stored_at: float  # wall
    url: str
    private: bool
    status: int
    size: int  # octets of the bodies of its variants
    variants: int
    superseded: bool
    withdrawn: bool


def row_of(key: bytes, slot: Slot, sizes: Iterable[int], stored_at: float) -> Row:
    """Return the row of a key with its variants; `sizes` are those of their bodies."""
    owner, url = key_parts(key)
    newest = slot[0]
    return Row(
        stored_at,
        url.decode("latin-1"),
        bool(owner),
        newest[STATUS],
        sum(sizes),
        len(slot),
        bool(newest[SUPERSEDED]),
        newest[AGE_MAX] == WITHDRAWN,
    )


class Near(NamedTuple):
    """What a worker has near it."""

    rows: dict[bytes, Row]  # by slot key; first those that are not in the database
    wanted: int  # pages that are wanted and not in the database; no row is left out of so many
    alone: set[bytes]  # slot keys of all pages that are not in the database
    more: int  # further ones

    @property
    def complete(self) -> bool:
        """Whether all pages that the worker alone has are among the rows."""
        return self.wanted <= len(self.rows)

    def packed(self, bytes_max: int) -> bytes:
        """Return it as octets, without the last rows if there is no room for them."""
        told: list[str] = []
        alone = json.dumps([one.hex() for one in sorted(self.alone)])
        room = bytes_max - len(alone) - 100
        for slot_key, row in self.rows.items():
            text = json.dumps([slot_key.hex(), *row])
            room -= len(text) + 2
            if room < 0:
                break
            told.append(text)
        counts = f'"wanted": {self.wanted}, "more": {self.more}'
        return f'{{"rows": [{", ".join(told)}], "alone": {alone}, {counts}}}'.encode()


def unpacked(data: bytes) -> Near:
    """Return what a worker has told."""
    said: dict[str, Any] = json.loads(data)
    rows = {bytes.fromhex(slot_key): Row(*row) for slot_key, *row in said["rows"]}
    return Near(rows, said["wanted"], set(map(bytes.fromhex, said["alone"])), said["more"])


def near_rows(
    wanted: Wanted,
    slots: Iterable[tuple[bytes, Slot]],
    slot_key_of: Callable[[bytes], bytes],
    is_in_database: Callable[[bytes], bool],
    now: float,
    wall: float,
) -> Near:
    """Return what is near a worker; a thread calls it, since there may be many pages.

    Args:
        slots: Keys of the store and their variants.
        now: Monotonic seconds.
        wall: The same moment, seconds since the epoch.
    """
    alone: set[bytes] = set()
    more = fits = 0

    def fitting() -> Iterable[tuple[bool, float, bytes, bytes, Slot]]:
        nonlocal more, fits
        for key, slot in slots:
            slot_key = slot_key_of(key)
            is_alone = not is_in_database(slot_key)
            if is_alone and len(alone) < ALONE_MAX:
                alone.add(slot_key)
            elif is_alone:
                more += 1
            if wanted.fits(key):
                fits += is_alone
                stored_at = wall - max(0.0, now - slot[0][STORED_AT])
                yield is_alone, stored_at, slot_key, key, slot

    rows = {
        slot_key: row_of(key, slot, map(_body_bytes, slot), stored_at)
        for _, stored_at, slot_key, key, slot in nlargest(
            ROWS_MAX, fitting(), key=lambda one: one[:2]
        )
    }
    return Near(rows, fits, alone, more)


def _body_bytes(record: Record) -> int:
    return len(record[BODY])


class Asked:
    """A question that others have not all answered yet.

    Attributes:
        told: The answers so far, packed.
        complete: Whether all have answered; known when `is_over` is.
    """

    def __init__(self, number: int, readers: Mapping[int, RingReader], until: float) -> None:
        self.number = number
        self.told: list[bytes] = []
        self.complete = True
        self._readers = dict(readers)
        self._until = until

    def is_over(self, place: int, now: float) -> bool:
        """Read what has come; return whether nothing else will."""
        for other, reader in list(self._readers.items()):
            messages = reader.read()
            if messages is None:  # it has told too much since
                del self._readers[other]
                self.complete = False
                continue
            for message in messages:
                asker, number, flags = _head.unpack_from(message)
                if flags & _ANSWERS and (asker, number) == (place, self.number):
                    self.told.append(message[_head.size :])
                    del self._readers[other]
                    break
        if self._readers and now >= self._until:
            self._readers.clear()
            self.complete = False
        return not self._readers


class PageAnswers:
    """The questions of one worker, and those of the others to it.

    Attributes:
        on_asked: Called with the question of another worker: its place, the number, what it wants.
    """

    def __init__(self, shared: SharedMemory, place: int) -> None:
        self._shared = shared
        self._place = place
        self._writer = RingWriter(shared.answers[place], shared.answered, place)
        self._number = 0
        self._seen = shared.answered.tobytes()
        self._readers = {
            other: RingReader(ring, shared.answered, other, shared.answered[other])
            for other, ring in enumerate(shared.answers)
            if other != place
        }
        self.on_asked: Callable[[int, int, Wanted], None] = lambda place, number, wanted: None

    # -- the worker that lists

    def asking(self, now: float) -> Asked:
        """Begin to listen to the workers that are alive, before they are asked."""
        shared = self._shared
        self._number -= 1
        readers = {
            place: RingReader(ring, shared.answered, place, shared.answered[place])
            for place, ring in enumerate(shared.answers)
            if place != self._place and now - shared.last_beat(place) < ALIVE_S
        }
        return Asked(self._number, readers, now + GATHER_S)

    def ask(self, asked: Asked, wanted: Wanted) -> None:
        """Ask the others; in the thread that writes, as all that this worker tells."""
        question = bytes([_OWNERS.index(wanted.private)]) + wanted.search
        self._writer.write(_head.pack(self._place, asked.number, _ASKS) + question)

    # -- the others

    @property
    def answer_bytes_max(self) -> int:
        """The size of the largest answer."""
        return self._writer.message_bytes_max - _head.size

    def answer(self, place: int, number: int, said: bytes) -> None:
        """Answer the worker at a place; in the thread that writes."""
        self._writer.write(_head.pack(place, number, _ANSWERS) + said)

    def look(self) -> None:
        """Look for questions of others. Called on every tick."""
        if self._shared.answered.tobytes() == self._seen:
            return
        self._seen = self._shared.answered.tobytes()
        for place, reader in self._readers.items():
            for message in reader.read() or ():
                asker, number, flags = _head.unpack_from(message)
                if flags & _ASKS and asker == place:
                    question = message[_head.size :]
                    self.on_asked(place, number, Wanted(question[1:], _OWNERS[question[0]]))
