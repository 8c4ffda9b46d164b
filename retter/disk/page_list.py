"""The stored pages of all workers, for an operator: each once, the newest first.

A list has two sources. The keys of the database are looked through in the thread that writes, a
slice at a time, so that commits come between; what was found is kept for the next part of the list.
And each worker tells what is near it, every time, since it may not have committed it
(page_answers.py). Of a page that is in both, the newer version counts. Of the pages of one answer,
and of these alone, the rows are read from the database.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import merge
from itertools import islice
from struct import Struct
from typing import Any, Final, NamedTuple, cast

from retter.disk.change import TURN_ENTRIES, in_turns
from retter.disk.database import Database
from retter.disk.page_answers import (
    Asked,
    Near,
    PageAnswers,
    Row,
    Wanted,
    near_rows,
    row_of,
    unpacked,
)
from retter.disk.threads import Threads
from retter.store.packing import newest_of_packed
from retter.store.record import STORED_AT
from retter.store.write_behind import Found, Slot

# The thread looks through keys for this long at a time. A commit waits for no longer than that.
SLICE_S: Final = 0.02
SLICE_ENTRIES: Final = 4096

# How long an operator waits for a list. The largest store takes some seconds more, and one on a
# slow disk, too: then the answer says how far it has come, and the next question gets the list.
LIST_S: Final = 3.0

# The newest pages that are known by one list: 80 octets each. Of more, the others are not listed.
LISTED_MAX: Final = 250_000
RUN_ENTRIES: Final = 4096  # to sort them takes a millisecond

# Lists that are kept for their next part, and for how long after they were asked for.
LISTS_MAX: Final = 4
KEPT_S: Final = 60.0

# Two workers compute a time of day from the same moment: it differs by less than this.
SAME_S: Final = 1.0

_stored_at = Struct(">d")  # times after 1970 as octets are in the order of the times


def _entry(stored_at: float, slot_key: bytes) -> bytes:
    return _stored_at.pack(max(0.0, stored_at)) + slot_key


class Listing(NamedTuple):
    """A part of a list."""

    rows: list[Row]
    looked_through: int
    of: int
    next: int | None  # what to skip for the next part; 0: ask again; None: that was all
    complete: bool  # all workers have told what they have


class Order:
    """The keys of the database that are wanted, the newest first.

    Attributes:
        looked_through: Slots so far.
        is_whole: All slots were looked through.
        is_told: Somebody got the list.
        asked_at: When it was last asked for, monotonic seconds.
    """

    __slots__ = (
        "_length", "_near", "_run", "_runs", "_slots", "_wanted", "asked_at", "is_told", "is_whole",
        "looked_through",
    )  # fmt: skip

    def __init__(self, wanted: Wanted, slots: Iterator[tuple[bytes, bytes]]) -> None:
        self._wanted = wanted
        self._slots = slots
        self._runs: list[list[bytes]] = []  # the time and the slot key of each, sorted
        self._run: list[bytes] = []
        self._near: list[bytes] = []  # the same of what was near the workers, sorted
        self._length = 0
        self.looked_through = 0
        self.is_whole = False
        self.is_told = False
        self.asked_at = 0.0

    def go_on(self, clock: Callable[[], float]) -> None:
        """Look through a slice; in the thread."""
        until, number = clock() + SLICE_S, 0
        for slot_key, data in islice(self._slots, SLICE_ENTRIES):
            number += 1
            self.looked_through += 1
            found = newest_of_packed(data)
            if found is not None and self._wanted.fits(found[0]):
                self._note(_entry(found[1], slot_key))
            if not number % TURN_ENTRIES and clock() >= until:
                return
        self.is_whole = number < SLICE_ENTRIES
        if self.is_whole:
            self._end_run()

    def _note(self, one: bytes) -> None:
        self._run.append(one)
        if len(self._run) >= RUN_ENTRIES:
            self._end_run()

    def _end_run(self) -> None:
        self._run.sort(reverse=True)
        self._runs.append(self._run)
        self._length += len(self._run)
        self._run = []
        if self._length > 2 * LISTED_MAX:
            self._runs = [list(islice(merge(*self._runs, reverse=True), LISTED_MAX))]
            self._length = len(self._runs[0])

    def begin(self, near: dict[bytes, Row]) -> None:
        """Put in what is near the workers; in the thread.

        The order stays for all parts of the list. A page whose version near a worker is written
        meanwhile would else change its place by a millisecond, and stand in two parts, or in none.
        """
        self._near = [_entry(row.stored_at, one) for one, row in near.items()]
        self._near.sort(reverse=True)

    def newest(self) -> Iterator[bytes]:
        """Yield slot keys, the newest first."""
        near = {one[_stored_at.size :] for one in self._near}
        passed: set[bytes] = set()
        for one in merge(*self._runs, self._near, reverse=True):
            slot_key = one[_stored_at.size :]
            if slot_key not in near:
                yield slot_key
            elif slot_key not in passed:
                passed.add(slot_key)
                yield slot_key

    def end(self) -> None:
        """Look no further."""
        self.is_whole = True


@dataclass(slots=True, eq=False)
class _Question:
    """A part of a list that somebody waits for."""

    wanted: Wanted
    skip: int
    rows_max: int
    done: Callable[[Listing], None]
    order: Order
    asked: Asked
    until: float
    near: list[Near] = field(default_factory=list[Near])  # of this worker
    reads: bool = False  # the rows of the answer


class _Read(NamedTuple):
    """A row of the answer, or what the database has in its place."""

    row: Row | None
    key: bytes = b""
    found: Found | None = None
    sizes: tuple[int, ...] = ()


class Source(NamedTuple):
    """What a worker has, as its list of pages needs it.

    Attributes:
        near: Returns the keys and variants that are near it, and those that wait for their commit.
        checked: Returns a slot from the database, unless it was removed meanwhile.
        is_used: Whether the database is.
        reading: Reads the database: calls what it gets, in the thread.
    """

    database: Database
    writer: Threads
    clock: Callable[[], float]
    wall: Callable[[], float]
    max_stale_s: Callable[[], float]
    near: Callable[[], tuple[list[bytes], Callable[[bytes], Slot]]]
    checked: Callable[[bytes, Found], Found | None]
    is_used: Callable[[], bool]
    reading: Callable[[Callable[[], Any]], Any]


class PageList:
    """The lists of one worker, and its answers for those of others."""

    def __init__(self, source: Source, answers: PageAnswers, place: int) -> None:
        self._source = source
        self._answers = answers
        self._place = place
        self._orders: dict[Wanted, Order] = {}
        self._walks: Order | None = None  # in the thread
        self._questions: list[_Question] = []
        answers.on_asked = self._answer

    # -- answers to others

    def _answer(self, place: int, number: int, wanted: Wanted) -> None:
        near, answers = self._near(wanted), self._answers
        self._source.writer.submit(
            lambda: answers.answer(place, number, near().packed(answers.answer_bytes_max)),
            lambda _: None,
        )

    def _near(self, wanted: Wanted) -> Callable[[], Near]:
        """Return what the thread calls to find the pages near this worker."""
        source = self._source
        keys, slot_of = source.near()
        now, wall = source.clock(), source.wall()

        def slots() -> Iterable[tuple[bytes, Slot]]:
            for key in in_turns(keys):
                slot = slot_of(key)
                if slot:
                    yield key, slot

        return lambda: near_rows(wanted, slots(), source.database.slot_key, self._has, now, wall)

    def _has(self, slot_key: bytes) -> bool:
        try:
            return self._source.is_used() and self._source.database.has(slot_key)
        except OSError:
            return False

    # -- lists

    def ask(
        self, wanted: Wanted, skip: int, rows_max: int, done: Callable[[Listing], None]
    ) -> None:
        """List stored pages; `done` is called within LIST_S, and a moment if the loop is busy.

        Args:
            skip: How many of the newest are left out.
            rows_max: How many are wanted.
        """
        source, now = self._source, self._source.clock()
        order = self._order(wanted, anew=not skip)
        order.asked_at = now
        question = _Question(
            wanted, skip, rows_max, done, order, self._answers.asking(now), now + LIST_S
        )
        self._questions.append(question)
        near = self._near(wanted)

        def ask_all() -> Near:
            self._answers.ask(question.asked, wanted)
            return near()

        def told(own: Any) -> None:
            if not isinstance(own, Near):
                own, question.asked.complete = Near({}, 0, set(), 0), False
            question.near.append(own)
            self._look()

        self._walk()
        source.writer.submit(ask_all, told)

    def _order(self, wanted: Wanted, *, anew: bool) -> Order:
        order = self._orders.pop(wanted, None)
        if order is None or (anew and order.is_told):
            if order is not None:
                order.end()
            order = Order(wanted, self._source.database.packed_slots())
        self._orders[wanted] = order  # the last one is the newest
        while len(self._orders) > LISTS_MAX:
            self._orders.pop(next(iter(self._orders))).end()
        return order

    def _walk(self) -> None:
        """Have the thread look through the next slice for the oldest list that is not whole."""
        source = self._source
        if self._walks is not None:
            return
        orders = [one for one in self._orders.values() if not one.is_whole]
        if not source.is_used():
            for order in orders:
                order.end()
        elif orders:
            order = orders[0]
            self._walks, go_on = order, partial(order.go_on, source.clock)
            source.writer.submit(lambda: source.reading(go_on), self._walked)

    def _walked(self, result: object) -> None:
        order, self._walks = self._walks, None
        if order is not None and isinstance(result, Exception):
            order.end()  # the next read of a visitor says why
        self._look()
        self._walk()

    def tick(self) -> None:
        """Look for questions and answers. Called on every tick."""
        self._answers.look()
        if self._questions:
            self._look()
        elif self._orders:
            oldest = self._source.clock() - KEPT_S
            for wanted in [one for one, it in self._orders.items() if it.asked_at < oldest]:
                self._orders.pop(wanted).end()

    def _look(self) -> None:
        """Answer the questions of which all is known, and those that have waited too long."""
        now = self._source.clock()
        for question in list(self._questions):
            is_known = question.asked.is_over(self._place, now) and bool(question.near)
            if now >= question.until:
                self._questions.remove(question)
                self._tell_how_far(question)
            elif is_known and question.order.is_whole and not question.reads:
                question.reads = True
                self._read(question)

    def _tell_how_far(self, question: _Question) -> None:
        looked = question.order.looked_through
        of = max(looked, self._entries())
        question.done(Listing([], looked, of, 0, question.asked.complete))

    def _entries(self) -> int:
        try:
            return self._source.database.amounts()[0] if self._source.is_used() else 0
        except OSError:
            return 0

    def _read(self, question: _Question) -> None:
        """Have the thread read the rows of the answer."""
        source = self._source
        now, wall = source.clock(), source.wall()
        source.writer.submit(
            lambda: source.reading(lambda: self._rows(question, now, wall)),
            lambda result: self._tell(question, result, now, wall),
        )

    def _rows(
        self, question: _Question, now: float, wall: float
    ) -> tuple[list[_Read], bool, int, bool]:
        """Return what stands in the answer, whether there is more, the number of all pages, and
        whether all that are not in the database are known.
        """
        near: dict[bytes, Row] = {}
        alone: set[bytes] = set()
        more, complete = 0, True
        for one in [*question.near, *map(unpacked, question.asked.told)]:
            for slot_key, its in one.rows.items():
                if slot_key not in near or near[slot_key].stored_at < its.stored_at:
                    near[slot_key] = its
            alone |= one.alone
            more += one.more
            complete = complete and one.complete
        begin, end, order = question.skip, question.skip + question.rows_max, question.order
        if not begin:
            order.begin(near)
        some = list(islice(order.newest(), begin, end + 1))
        reads = [self._read_one(one, near.get(one), now, wall) for one in some[: end - begin]]
        # A worker may have committed some of them since it was asked.
        more += len([one for one in alone if not self._has(one)])
        return reads, len(some) > end - begin, self._entries() + more, complete

    def _read_one(self, slot_key: bytes, near: Row | None, now: float, wall: float) -> _Read:
        source, slot = self._source, None
        if source.is_used():
            slot = source.database.slot_without_bodies(slot_key, now, wall, source.max_stale_s())
        if slot is None:
            return _Read(near)
        stored_at = wall - (now - slot.variants[0].stored_at)
        if near is not None and stored_at <= near.stored_at + SAME_S:
            return _Read(near)
        records = tuple([tuple(one) for one in slot.variants])
        return _Read(near, slot.key, Found(records, slot.marks), slot.body_lengths)

    def _tell(self, question: _Question, result: Any, now: float, wall: float) -> None:
        if question not in self._questions:
            return  # it has waited too long
        self._questions.remove(question)
        if isinstance(result, Exception):
            result = [], False, 0, False
        reads, is_more, of, complete = cast("tuple[list[_Read], bool, int, bool]", result)
        rows = [row for row in [self._row(one, now, wall) for one in reads] if row is not None]
        question.order.is_told = True
        end = question.skip + question.rows_max
        question.done(
            Listing(
                rows,
                of,
                of,
                end if is_more and end < LISTED_MAX else None,
                complete and question.asked.complete,
            )
        )

    def _row(self, read: _Read, now: float, wall: float) -> Row | None:
        """Return a row; None if the page was removed meanwhile."""
        if read.found is None:
            return read.row
        found = self._source.checked(read.key, read.found)
        if found is None or not found.slot:
            return read.row
        stored_at = wall - max(0.0, now - found.slot[0][STORED_AT])
        return row_of(read.key, found.slot, read.sizes, stored_at)
