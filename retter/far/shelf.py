"""What boxes share, as the event loop sees it: nothing here waits for the server.

Stored responses are written later, by a thread: a key at most once a minute, and in batches. They
are read only when a visitor needs one and there is none in memory or on disk, and then for 20 ms at
most. Changes (logouts, purges, an operator's orders) are told within a tick and heard four times a
second. If the server is away, slow, full, read-only or has lost its data, each box goes on by
itself, and what it knows is told when the server is back.
"""

import contextlib
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from math import inf
from typing import Any, Final, cast

from retter.disk.threads import Threads
from retter.far.changes import NO_PLACE, Heard, Message, Verdict
from retter.far.keys import Keys
from retter.far.rounds import Conversation, Outcome, Read, Reader, Round
from retter.far.server import Away, Server
from retter.far.siblings import Siblings
from retter.store.packing import may_be_kept
from retter.store.record import BODY, SUPERSEDED
from retter.store.write_behind import Found, Removals, Slot, marked_superseded

# How often changes of other boxes are heard, and how often a sign of life is given.
HEAR_EVERY_S: Final = 0.25
BEAT_EVERY_S: Final = 1.0

# A box that has not heard anything for so long neither reads nor writes responses.
IN_TOUCH_S: Final = 2.5

# The delay after a round that failed.
RETRY_S: Final = 1.0

# How long an answer of the server may take: in a round, and in a read, which no visitor waits for
# after READ_WAIT_S.
ANSWER_S: Final = 1.0
READ_ANSWER_S: Final = 0.1

# A visitor waits for the server for this long at most. After that the key counts as absent.
READ_WAIT_S: Final = 0.02
# After a read that came too late or failed, nobody waits for this long.
READ_REST_S: Final = 1.0
# Requests that wait at a time, and keys of one read.
READS_MAX: Final = 256
READ_KEYS_MAX: Final = 64
# A key that the server does not have is not asked for again for so long.
ABSENT_S: Final = 5.0
ABSENT_MAX: Final = 4096

# A key is written once in this time at most.
WRITE_AGAIN_S: Final = 60.0
# And once in this time if its bodies are the same: mostly only the Date is another one.
WRITE_EQUAL_S: Final = 600.0
# Keys of one round: to pack and compress 64 pages of 17 KB takes a thread 10 ms.
WRITE_KEYS_MAX: Final = 64
# Octets of one round. Larger rounds would delay changes.
WRITE_BYTES_MAX: Final = 2 * 1024 * 1024
# Keys that wait, 100 to 200 octets each. Further ones are not written.
WAITING_MAX: Final = 8192
# Keys whose last write is remembered, 100 octets each.
WRITTEN_MAX: Final = 16_384

# Changes that wait while the server is away. Further marks of superseded keys are forgotten; for
# further sessions, the other boxes drop all personal responses.
UNTOLD_MAX: Final = 4096
# When the server comes back, it may have lost what was told to it last.
TELL_AGAIN_S: Final = 30.0
TELL_AGAIN_MAX: Final = 256

ORDERS_REMEMBERED_MAX: Final = 64

# The first contact may take so long without being a problem.
FIRST_S: Final = 5.0

LATE: Final = "it does not answer in time"
NOT_YET: Final = "it has not answered yet"

Ask = Callable[[dict[bytes, Found]], None]


def _bodies_of(slot: Slot) -> int:
    # Python keeps the hash of octets, so this is nearly free the second time.
    return hash(tuple([one[BODY] for one in slot]))


class _Wait:
    """A request that waits for what is stored under its keys."""

    __slots__ = ("_asks", "is_done", "keys", "until")

    def __init__(self, keys: list[bytes], asks: Ask, until: float) -> None:
        self.keys = keys
        self.until = until
        self.is_done = False
        self._asks = asks

    def asks(self, found: dict[bytes, Found]) -> None:
        """Give the request what was found; once."""
        if not self.is_done:
            self.is_done = True
            self._asks(found)


class FarShelf:
    """The server behind one store.

    Args:
        slot_of: Returns what is in memory under a key, and the marks of its owner.
        call_later: Calls a function after some seconds; it may be late by a tick.
        personal: Also share responses of owners (`--store-private`).

    Attributes:
        on_message: Called with the removals, orders and names that another box has told.
        on_boxes: Called with the number of boxes when that changes.
        trouble: Why the server is not used; "" if it is.
        boxes: How many boxes there are, as far as is known: a server that is away says nothing.
        siblings: The other workers of this box, if there are any.
    """

    def __init__(
        self,
        keys: Keys,
        server: Server,
        reading_server: Server,
        reader: Threads,
        writer: Threads,
        clock: Callable[[], float],
        wall: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        max_stale_s: float,
        *,
        personal: bool = True,
        box: str = "",
    ) -> None:
        self.keys = keys
        self.box = box or os.urandom(8).hex()
        self._talk = Conversation(keys, server, self.box, max_stale_s)
        self._reading = Reader(keys, reading_server, max_stale_s)
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._wall = wall
        self._call_later = call_later
        self._personal = personal
        self.slot_of: Callable[[bytes], tuple[Slot, tuple[int, ...]]] = lambda _: ((), ())
        self.on_message: Callable[[Message], None] = lambda _: None
        self.on_boxes: Callable[[int], None] = lambda _: None
        self.heard = Heard()
        self.siblings: Siblings | None = None
        self._family = ""  # begins the names of all workers of this box
        self._told_until = 0  # of the siblings' news: what the message under way has
        self._applies = False  # a change that another process has told
        # Rounds.
        self._under_way: Round | None = None
        self._round_at = 0.0  # when the next one is due
        self._beat_at = 0.0
        self._not_before = 0.0  # after a round that failed
        self._in_touch_until = 0.0
        self._failed_at: float | None = None  # when the server went away
        self._told_last = False  # the last round told changes
        self._left = False
        self.trouble = NOT_YET
        self._began_at = clock()
        self.boxes = 1
        # Writes: keys, and whether there was anything to be kept when they changed.
        self._waiting: dict[bytes, bool] = {}
        self._later: dict[bytes, float] = {}  # written lately: until when they wait
        self._later_order: list[tuple[float, bytes]] = []  # the same as a heap
        # By the hash of the key: when, and the hash of the bodies.
        self._written: OrderedDict[int, tuple[float, int]] = OrderedDict()
        # Changes.
        self._untold = Message(self.box)
        self._told: deque[tuple[float, Message]] = deque(maxlen=TELL_AGAIN_MAX)
        self._orders: deque[str] = deque(maxlen=ORDERS_REMEMBERED_MAX)
        self._names: set[bytes] = set()
        # Reads.
        self._waits: list[_Wait] = []
        self._reading_for: list[_Wait] = []
        self._reading_keys: frozenset[bytes] = frozenset()
        self._is_reading = False
        self._timer_set = False
        self._absent: OrderedDict[int, float] = OrderedDict()  # until when, by the hash of the key
        self._no_reads_before = 0.0
        # Figures.
        self.reads = 0
        self.hits = 0
        self.reads_late = 0
        self.reads_refused = 0
        self.written = 0
        self.bodies_written = 0
        self.dropped = 0
        self.bytes_sent = 0
        self.changes_told = 0
        self.changes_heard = 0
        self.changes_lost = 0
        self.failures = 0
        self.unreadable = 0

    # -- what the store does (follower.py)

    def changed(self, key: bytes) -> None:
        """The responses stored under a key have changed or been removed."""
        if self._left or (not self._personal and key.startswith(b"@")):
            return
        slot, _ = self.slot_of(key)
        if self._applies and not slot:
            return  # whoever has removed it may have stored it again by now
        if slot and all(one[SUPERSEDED] for one in slot):
            return  # the change says so; the next version shall not wait for the end of a minute
        is_kept = any(may_be_kept(one) for one in slot)
        if key in self._waiting:
            self._waiting[key] = is_kept
            return
        written = self._written.get(hash(key))
        if is_kept and written is not None:
            self._write_later(key, slot, *written)
        elif len(self._waiting) < WAITING_MAX:
            self._later.pop(key, None)
            self._waiting[key] = is_kept
        else:
            self.dropped += 1

    def _write_later(self, key: bytes, slot: Slot, written_at: float, bodies: int) -> None:
        """Let a key wait that was written lately; what is new does not wait behind it."""
        is_equal = bodies == _bodies_of(slot)
        due_at = written_at + (WRITE_EQUAL_S if is_equal else WRITE_AGAIN_S)
        if due_at >= self._later.get(key, inf):
            return
        if len(self._later) < WAITING_MAX or key in self._later:
            self._later[key] = due_at
            heappush(self._later_order, (due_at, key))
        else:
            self.dropped += not is_equal

    def removed(self, removals: Removals) -> None:
        """Stored responses were removed, by this box or because another one has told so."""
        for key in (*removals.keys, *removals.superseded):
            self._written.pop(hash(key), None)  # the next response is written soon
            if self._later.pop(key, None) is not None:
                self._waiting[key] = True
        if self._applies or self._left:
            return
        untold = self._untold.removals
        untold.add(removals)
        if len(untold.keys) + len(untold.superseded) > UNTOLD_MAX:
            self.changes_lost += len(untold.keys) + len(untold.superseded)
            untold.keys, untold.superseded = set(), set()
        if len(untold.owners) + len(untold.marks) > UNTOLD_MAX:
            untold.personal = True
            untold.owners, untold.marks = set(), set()

    def tell_order(self, order: dict[str, Any]) -> None:
        """Tell the other boxes an operator's order."""
        order = {**order, "id": os.urandom(8).hex()}
        self._orders.append(order["id"])
        self._untold.orders = [*self._untold.orders, order][-ORDERS_REMEMBERED_MAX:]

    def know_names(self, names: set[bytes]) -> None:
        """Tell the other boxes which names of session cookies are new here."""
        new = names - self._names
        if new:
            self._names |= new
            self._untold.names += sorted(new)

    # -- the clock

    def wall(self) -> float:
        """Return the time of day by the server's clock, in seconds since the epoch."""
        return self._wall() + self._talk.clock_s

    @property
    def is_in_touch(self) -> bool:
        """Whether responses may be read and written: all changes have been heard lately."""
        return self._clock() < self._in_touch_until

    def tick(self, now: float) -> None:
        """Start what is due. Called on every tick."""
        if self.siblings is not None:
            self._follow_siblings(self.siblings, now)
        if self._waits or self._reading_for:
            self._end_late_reads()
        if self._under_way is not None or self._left or now < self._not_before:
            return
        if now >= self._round_at or self._untold or (self._waiting and self._told_last):
            self._begin_round(now)

    # -- the other workers of this box

    def join(self, siblings: Siblings) -> None:
        """Be one of several workers, which talk to the server side by side."""
        self.siblings = siblings
        self.box = self._untold.box = f"{self._family}.{self.box}"
        self.heard.place = siblings.start_place()
        self.removed(siblings.own)

    @contextlib.contextmanager
    def applying(self) -> Generator[None, None, None]:
        """Within this block, removals are those of another process, which tells them itself."""
        before, self._applies = self._applies, True
        try:
            yield
        finally:
            self._applies = before

    def _follow_siblings(self, siblings: Siblings, now: float) -> None:
        inherited = siblings.tick(now)
        if inherited:
            self.removed(inherited)
        if not self._untold and (self._under_way is None or self._under_way.message is None):
            siblings.told(siblings.position)

    def _is_known(self, place: bytes, message: Message) -> bool:
        """Return whether the removals of a message have been applied here by another worker."""
        siblings = self.siblings
        if siblings is None or place == NO_PLACE:
            return False
        if self._is_siblings(message):
            return True
        if not siblings.was_applied(place, message):
            return False
        siblings.look(self._clock())
        return True

    def _is_siblings(self, message: Message) -> bool:
        return self.siblings is not None and message.box.startswith(f"{self._family}.")

    # -- rounds

    def _begin_round(self, now: float) -> None:
        message: Message | None = None
        slots: list[tuple[bytes, Slot, tuple[int, ...]]] = []
        # Changes and responses take turns: a response that is written in the same round as a change
        # would carry a place before it.
        if self._untold and not (self._told_last and self._waiting and self.is_in_touch):
            message, self._untold = self._untold, Message(self.box)
            if self.siblings is not None:
                self._told_until = self.siblings.position
        elif self.is_in_touch:
            slots = self._due(now)
        self._told_last = message is not None
        beats = now >= self._beat_at
        if beats:
            self._beat_at = now + BEAT_EVERY_S
        self._round_at = now + HEAR_EVERY_S
        asked = Round(self.heard.place, message, slots, beats, now, self._wall())
        self._under_way = asked
        self._writer.submit(lambda: self._talk.round(asked), self._round_done)

    def _due(self, now: float) -> list[tuple[bytes, Slot, tuple[int, ...]]]:
        """Take the next keys that are to be written."""
        while self._later_order and self._later_order[0][0] <= now:
            at, key = heappop(self._later_order)
            if self._later.get(key) == at:  # else it waits no longer
                del self._later[key]
                self._waiting[key] = True
        due: list[tuple[bytes, Slot, tuple[int, ...]]] = []
        size, untold = 0, self._untold.removals
        if self.siblings is not None:
            self.siblings.look(now)
            untold = Removals()
            untold.add(self._untold.removals)
            untold.add(self.siblings.untold)
        kept: dict[bytes, bool] = {}  # a change of them must be told first
        while self._waiting and len(due) < WRITE_KEYS_MAX and size < WRITE_BYTES_MAX:
            key = next(iter(self._waiting))
            was_kept = self._waiting.pop(key)
            slot, marks = self.slot_of(key)
            if untold.take(key, marks) or key in untold.superseded:
                kept[key] = was_kept
                continue
            if not slot and was_kept:
                self.dropped += 1  # evicted meanwhile
                continue
            due.append((key, slot, marks))
            size += sum([len(one[BODY]) for one in slot])
            self._written[hash(key)] = now, _bodies_of(slot)
            self._written.move_to_end(hash(key))
            if len(self._written) > WRITTEN_MAX:
                self._written.popitem(last=False)
        self._waiting = {**kept, **self._waiting} if kept else self._waiting
        return due

    def _round_done(self, result: Any) -> None:
        asked, self._under_way = self._under_way, None
        if asked is None:
            return
        if isinstance(result, Outcome):
            self._round_worked(asked, result)
        else:
            self._round_failed(asked, result)

    def _round_worked(self, asked: Round, outcome: Outcome) -> None:
        now = self._clock()
        if asked.message is not None:
            self.changes_told += 1
            self._told.append((asked.now, asked.message))
            if self.siblings is not None:
                self.siblings.told(self._told_until)
        self._take_messages(outcome)
        self.heard.place = outcome.place
        if self.siblings is not None:
            self.siblings.heard(outcome.place)
        if outcome.complete:
            self._in_touch_until = asked.now + IN_TOUCH_S
            self.trouble = ""
        else:
            self._round_at = now
        if outcome.began:
            self._tell_again()
            self._reader.submit(self._reading.warm, lambda _: None)
        self._failed_at = None
        self._reading.clock_s = self._talk.clock_s
        self.written += outcome.written
        self.bodies_written += outcome.bodies
        self.bytes_sent += outcome.bytes_sent
        self.unreadable += outcome.unreadable
        if outcome.boxes:
            self._count_boxes(outcome.boxes)

    def _take_messages(self, outcome: Outcome) -> None:
        for place, purge in outcome.purges:
            self.heard.note_purge(place, purge)
        for place, message in outcome.messages:
            if place != NO_PLACE:
                self.heard.note(place, message.removals)
            if message.box == self.box:
                continue
            if self._is_siblings(message) and place != NO_PLACE:
                message.orders = []
            message.orders = [one for one in message.orders if one.get("id") not in self._orders]
            self._orders.extend([str(one.get("id")) for one in message.orders])
            self._names.update(message.names)
            self.changes_heard += place != NO_PLACE
            self._apply(place, message)

    def _apply(self, place: bytes, message: Message) -> None:
        if message.removals and self._is_known(place, message):
            message.removals = Removals()
        with self.applying():
            self.on_message(message)
        if self.siblings is not None and message.removals and place != NO_PLACE:
            self.siblings.applied(place, message)

    def _tell_again(self) -> None:
        """The server may have lost what it was told last."""
        if self._failed_at is None:
            return
        since = self._failed_at - TELL_AGAIN_S
        for at, message in self._told:
            if at >= since:
                self._untold.removals.add(message.removals)
        self._untold.names = sorted(self._names)

    def _count_boxes(self, boxes: int) -> None:
        if boxes != self.boxes:
            self.boxes = boxes
            self.on_boxes(boxes)

    def _round_failed(self, asked: Round, error: Any) -> None:
        now = self._clock()
        self.failures += 1
        self.trouble = str(error)
        self._in_touch_until = 0.0
        self._not_before = now + RETRY_S
        if self._failed_at is None:
            self._failed_at = asked.now
        self._beat_at = 0.0
        if asked.message is not None:
            self._untell(asked.message)
        for key, slot, _ in asked.slots:
            self._written.pop(hash(key), None)
            self._waiting.setdefault(key, bool(slot))
        if not isinstance(error, Away):
            raise error

    def _untell(self, message: Message) -> None:
        """Tell a message with the next round, before what has happened since."""
        later, self._untold = self._untold, message
        self._untold.orders += later.orders
        self._untold.names += later.names
        self.removed(later.removals)

    # -- reads

    def wants(self, keys: list[bytes]) -> list[bytes]:
        """Return which of these keys are worth a read."""
        now = self._clock()
        if now < self._no_reads_before or now >= self._in_touch_until:
            return []
        if len(self._waits) + len(self._reading_for) >= READS_MAX:
            self.reads_refused += 1
            return []
        return [
            key
            for key in keys
            if (self._personal or not key.startswith(b"@"))
            and now >= self._absent.get(hash(key), 0.0)
        ]

    def load(self, keys: list[bytes], asks: Ask) -> None:
        """Read keys; `asks` is called with what was found, after READ_WAIT_S with nothing."""
        wait = _Wait(keys, asks, self._clock() + READ_WAIT_S)
        self.reads += 1
        if self._is_reading and self._reading_keys.issuperset(keys):
            self._reading_for.append(wait)
        else:
            self._waits.append(wait)
        if not self._timer_set:
            self._timer_set = True
            self._call_later(READ_WAIT_S, self._on_timer)
        if not self._is_reading:
            self._read()

    def _read(self) -> None:
        keys: dict[bytes, None] = {}
        taken = 0
        for wait in self._waits:
            if taken and len(keys) + len(wait.keys) > READ_KEYS_MAX:
                break
            keys.update(dict.fromkeys(wait.keys))
            taken += 1
        self._reading_for, self._waits = self._waits[:taken], self._waits[taken:]
        wanted = list(keys)
        self._reading_keys, self._is_reading = frozenset(wanted), True
        now, wall = self._clock(), self._wall()
        self._reader.submit(
            lambda: self._reading.read(wanted, now, wall),
            lambda result: self._read_done(wanted, result),
        )

    def _read_done(self, wanted: list[bytes], result: Any) -> None:
        waits, self._reading_for = self._reading_for, []
        self._is_reading = False
        found: dict[bytes, Found] = {}
        now = self._clock()
        if isinstance(result, dict):
            read = cast("dict[bytes, Read]", result)
            for key in wanted:
                passed = self._passed(key, read[key]) if key in read else None
                if passed is not None:
                    found[key] = passed
                else:
                    self._note_absent(key, now)
        else:
            self._rest_from_reads(now)
            self.failures += 1
        for wait in waits:
            own = {key: found[key] for key in wait.keys if key in found}
            self.hits += bool(own)
            wait.asks(own)
        if self._waits and not self._is_reading:
            self._read()
        if not isinstance(result, (dict, Away)):
            raise result

    def _passed(self, key: bytes, read: Read) -> Found | None:
        found, heard = read
        verdict = self.heard.verdict(key, found.marks, heard)
        untold = self._untold.removals
        under_way = self._under_way.message if self._under_way is not None else None
        further = [under_way.removals] if under_way is not None else []
        if self.siblings is not None:
            self.siblings.look(self._clock())
            further.append(self.siblings.untold)
        for removals in (untold, *further):
            if removals.take(key, found.marks):
                return None
            if key in removals.superseded:
                verdict = Verdict.SUPERSEDED if verdict is Verdict.VALID else verdict
        if verdict is Verdict.GONE:
            return None
        if verdict is Verdict.SUPERSEDED:
            return Found(marked_superseded(found.slot), found.marks)
        return found

    def cannot_use(self, key: bytes) -> None:
        """Do not read a key again for a while: there is no room in memory for what was found."""
        self._note_absent(key, self._clock())

    def _note_absent(self, key: bytes, now: float) -> None:
        self._absent[hash(key)] = now + ABSENT_S
        self._absent.move_to_end(hash(key))
        if len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)

    def _rest_from_reads(self, now: float) -> None:
        self._no_reads_before = now + READ_REST_S
        waits, self._waits = self._waits, []
        for wait in waits:
            wait.asks({})

    def _on_timer(self) -> None:
        self._timer_set = False
        self._end_late_reads()
        waits = [*self._reading_for, *self._waits]
        if waits:
            self._timer_set = True
            self._call_later(max(0.001, waits[0].until - self._clock()), self._on_timer)

    def _end_late_reads(self) -> None:
        now = self._clock()
        waits = [*self._reading_for, *self._waits]
        if not waits or min([wait.until for wait in waits]) > now:
            return
        self.reads_late += len(waits)
        self._reading_for = []
        self._rest_from_reads(now)
        for wait in waits:
            if not wait.is_done:
                wait.asks({})

    # -- the end

    def leave(self) -> None:
        """Tell and hear nothing any more: another process of this box takes over."""
        self._left = True

    def count_as(self, name: bytes) -> None:
        """Be counted under a name that all processes of this box have."""
        self._talk.counted_as = name
        self._family = name.hex()

    def close(self) -> None:
        """Tell what is untold, if the server is there, and close the connections."""
        for thread in (self._reader, self._writer):
            thread.close()
        under_way, self._under_way = self._under_way, None
        if under_way is not None and under_way.message is not None:
            # Perhaps it has not been told, or not wholly. To tell it twice does no harm.
            self._untell(under_way.message)
        with contextlib.suppress(Exception):  # whatever the server answers, the rest must be closed
            if self._untold and not self._left:
                self._talk.round(Round(self.heard.place, self._untold, wall=self._wall()))
                self._untold = Message(self.box)
                if self.siblings is not None:
                    self.siblings.told(self.siblings.position)
            if not self._left and self.siblings is None:
                self._talk.leave()
        self._talk.close()
        self._reading.close()

    @property
    def untold(self) -> Removals:
        """The removals that the server may not know, for the next process of this box."""
        untold, under_way = Removals(), self._under_way
        if under_way is not None and under_way.message is not None:
            untold.add(under_way.message.removals)
        untold.add(self._untold.removals)
        return untold

    # -- looking in

    def away(self, now: float) -> str:
        """Return why the server is not used; "" if it is, or if this box has only just begun."""
        if now < self._in_touch_until or now < self._began_at + FIRST_S:
            return ""
        return self.trouble or LATE

    def set_max_stale(self, seconds: float) -> None:
        """Use another `--max-stale`."""
        self._talk.max_stale_s = self._reading.max_stale_s = seconds

    def stats(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "connected": int(self.is_in_touch),
            "boxes": self.boxes,
            "reads": self.reads,
            "hits": self.hits,
            "reads_late": self.reads_late,
            "reads_refused": self.reads_refused,
            "written": self.written,
            "bodies_written": self.bodies_written,
            "dropped": self.dropped,
            "waiting": len(self._waiting) + len(self._later),
            "bytes_sent": self.bytes_sent,
            "bytes_received": self._reading.bytes_received,
            "changes_told": self.changes_told,
            "changes_heard": self.changes_heard,
            "changes_lost": self.changes_lost,
            "failures": self.failures,
            "unreadable": self.unreadable + self._reading.unreadable,
            "trouble": self.trouble,
        }
