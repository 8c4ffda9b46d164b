"""The server behind the store, as the event loop sees it: nothing here waits for it.

Stored responses are written later, by a thread: a key at most once a minute, and in batches
(writes.py). They are read only when a visitor needs one and there is none in memory or on disk, and
then for 20 ms at most (reads.py). Changes (logouts, purges, an operator's orders) are sent within a
tick (outbox.py) and received four times a second. If the server is away, slow, full, read-only or
has lost its data, each box continues alone, and sends its changes when the server is back.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Final

from retter.far.changes import NO_PLACE, Effect, Heard, Message, keep_last_orders
from retter.far.keys import Keys
from retter.far.outbox import Outbox, passed
from retter.far.pace import Pace
from retter.far.reads import Ask, Reads
from retter.far.rounds import Conversation, Read, Reader, Round, RoundResult
from retter.far.server import Away, Server
from retter.far.siblings import Siblings
from retter.far.thread import JobThread
from retter.far.writes import Due, Writes
from retter.store.write_behind import Found, Removals, marked_superseded

# How long an answer of the server may take: in a round, and in a read, which no visitor waits for
# after READ_WAIT_S.
ANSWER_S: Final = 1.0
READ_ANSWER_S: Final = 0.1

# The octets of all answers of a round trip. No network brings so many for a read in the time that a
# visitor waits. The 1,024 changes of a round take half a MiB; one whose removals are as many as a
# message can have takes 1.3 MiB.
ANSWERS_BYTES_MAX: Final = 64 * 1024 * 1024
READ_ANSWERS_BYTES_MAX: Final = 16 * 1024 * 1024

# A round that takes longer is aborted: a server may send one octet at a time for ever. A round
# of 2 MiB to another continent takes 3 s.
ROUND_MAX_S: Final = 10.0

# At its end, the process waits this long for the server to take unsent changes.
CLOSE_S: Final = 2.0


class FarShelf:
    """The server behind one store.

    Args:
        call_later: Calls a function after some seconds; it may be late by a tick.
        personal: Also share responses of owners (`--store-private`).

    Attributes:
        heard: The changes that are known, and the place of the last one.
        on_message: Called with the removals, orders and names that another box has sent.
        on_boxes: Called with the number of boxes when that changes.
        boxes: The number of boxes, as it was last read from the server.
        siblings: The other workers of this box, if there are any.
    """

    def __init__(
        self,
        keys: Keys,
        server: Server,
        reading_server: Server,
        reader: JobThread,
        writer: JobThread,
        clock: Callable[[], float],
        wall: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        max_stale_s: float,
        *,
        personal: bool = True,
        box: str = "",
    ) -> None:
        self.keys = keys
        self.outbox = Outbox(box or os.urandom(8).hex())
        self.writes = Writes(personal=personal)
        self.reads = Reads(
            Reader(keys, reading_server, max_stale_s),
            reader,
            clock,
            wall,
            call_later,
            self._passed,
            personal=personal,
        )
        self.pace = Pace(clock())
        self.heard = Heard()
        self.on_message: Callable[[Message], None] = lambda _: None
        self.on_boxes: Callable[[int], None] = lambda _: None
        self.boxes = 1
        self.siblings: Siblings | None = None
        self._family = ""  # the common beginning of the names of this box's workers
        self._told_until = 0  # of the siblings' news: what the message under way has
        self._talk = Conversation(keys, server, self.outbox.box, max_stale_s)
        self._writer = writer
        self._clock = clock
        self._wall = wall
        self._under_way: Round | None = None
        self._told_last = False  # the last round sent changes
        self._applies = False  # applies a change that another process has sent
        self._left = False
        self._figures: Counter[str] = Counter()

    # -- what the store does (follower.py)

    def changed(self, key: bytes) -> None:
        """The responses stored under a key have changed or been removed."""
        if not self._left:
            self.writes.changed(key, elsewhere=self._applies)

    def removed(self, removals: Removals) -> None:
        """Stored responses were removed, by this box or at the word of another one."""
        self.writes.removed(removals)
        if not self._applies and not self._left:
            self.outbox.removed(removals)

    def tell_order(self, order: dict[str, Any]) -> None:
        """Send an operator's order to the other boxes."""
        self.outbox.order({**order, "id": os.urandom(8).hex()})

    # -- the clock

    def wall(self) -> float:
        """Return the time of day by the server's clock, in seconds since the epoch."""
        return self._wall() + self._talk.clock_s

    @property
    def is_in_touch(self) -> bool:
        """Whether responses may be read and written: all changes have been received lately."""
        return self.pace.is_in_touch(self._clock())

    def tick(self, now: float) -> None:
        """Start what is due. Called on every tick."""
        if self.siblings is not None:
            self._follow_siblings(self.siblings, now)
        self.reads.tick(now)
        asked = self._under_way
        if asked is not None:
            if now >= asked.now + ROUND_MAX_S:
                self._talk.abort()
            return
        if self._left or not self.pace.may_begin(now):
            return
        if self.pace.is_due(now) or self.outbox or (self.writes and self._told_last):
            self._begin_round(now)

    # -- the other workers of this box

    def join(self, siblings: Siblings) -> None:
        """Become one of several workers, each of which has its own connection."""
        self.siblings = siblings
        self.outbox.rename(f"{self._family}.{self.outbox.box}")
        self.heard.place = siblings.start_place()
        self.removed(siblings.own)

    @contextlib.contextmanager
    def applying(self) -> Generator[None, None, None]:
        """Within this block, removals are those of another process, which sends them itself."""
        before, self._applies = self._applies, True
        try:
            yield
        finally:
            self._applies = before

    def _follow_siblings(self, siblings: Siblings, now: float) -> None:
        inherited = siblings.tick(now)
        if inherited:
            self.removed(inherited)
        if self.outbox.is_all_told:
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

    def _untold_by_siblings(self, now: float) -> Removals:
        if self.siblings is None:
            return Removals()
        self.siblings.look(now)
        return self.siblings.untold

    # -- rounds

    def _begin_round(self, now: float) -> None:
        message: Message | None = None
        slots: Due = []
        # Changes and responses take turns: a response that is written in the same round as a change
        # would carry a place before it.
        if self.outbox and not (self._told_last and self.writes and self.is_in_touch):
            message = self.outbox.take()
            if self.siblings is not None:
                self._told_until = self.siblings.position
        elif self.is_in_touch:
            untold = self._untold_by_siblings(now)
            slots = self.writes.take_due(now, [self.outbox.waits, untold])
        self._told_last = message is not None
        beats = self.pace.begin(now)
        asked = Round(self.heard.place, message, slots, beats, now, self._wall())
        self._under_way = asked
        self._writer.submit(lambda: self._talk.round(asked), self._round_done)

    def _round_done(self, result: Any) -> None:
        asked, self._under_way = self._under_way, None
        if asked is None:
            return
        if isinstance(result, RoundResult):
            self._round_worked(asked, result)
            return
        self._figures["failures"] += 1
        self.pace.failed(asked.now, self._clock(), str(result))
        self.outbox.failed()
        self.writes.failed(asked.slots)
        if not isinstance(result, Away):
            raise result

    def _round_worked(self, asked: Round, outcome: RoundResult) -> None:
        if outcome.began and self.pace.failed_at is not None:
            self.outbox.again(self.pace.failed_at)
        if asked.message is not None:
            self._figures["changes_told"] += 1
            self.outbox.done(asked.now)
            if self.siblings is not None:
                self.siblings.told(self._told_until)
        self._take_messages(outcome)
        self.heard.place = outcome.place
        if self.siblings is not None:
            self.siblings.heard(outcome.place)
        if outcome.began:
            self.reads.warm()
        self.pace.worked(asked.now, self._clock(), complete=outcome.complete)
        self.reads.reader.clock_s = self._talk.clock_s
        self._figures.update(
            written=outcome.written,
            bodies_written=outcome.bodies,
            bytes_sent=outcome.bytes_sent,
            unreadable=outcome.unreadable,
        )
        if outcome.boxes and outcome.boxes != self.boxes:
            self.boxes = outcome.boxes
            self.on_boxes(self.boxes)

    def _take_messages(self, outcome: RoundResult) -> None:
        for place, purge in outcome.purges:
            self.heard.note_purge(place, purge)
        keep_last_orders([message for _, message in outcome.messages])
        for place, message in outcome.messages:
            if place != NO_PLACE:
                self.heard.note(place, message.removals)
            if self._is_siblings(message) and place != NO_PLACE:
                message.orders = []
            if not self.outbox.is_news(message):
                continue
            self._figures["changes_heard"] += place != NO_PLACE
            self._apply(place, message)

    def _apply(self, place: bytes, message: Message) -> None:
        if message.removals and self._is_known(place, message):
            message.removals = Removals()
        with self.applying():
            self.on_message(message)
        if self.siblings is not None and message.removals and place != NO_PLACE:
            self.siblings.applied(place, message)

    # -- reads

    def wants(self, keys: list[bytes]) -> list[bytes]:
        """Return which of these keys are worth a read."""
        return self.reads.wants(keys) if self.is_in_touch else []

    def load(self, keys: list[bytes], asks: Ask) -> None:
        """Read keys; `asks` is called with the entries found, or after READ_WAIT_S with none."""
        self.reads.load(keys, asks)

    def cannot_use(self, key: bytes) -> None:
        """Do not read a key again for a while: there is no room in memory for what was found."""
        self.reads.absent(key)

    def _passed(self, key: bytes, read: Read) -> Found | None:
        found, heard = read
        effect = self.heard.effect_on(key, found.marks, heard)
        if effect is Effect.GONE:
            return None
        if effect is Effect.SUPERSEDED:
            found = Found(marked_superseded(found.slot), found.marks)
        untold = [*self.outbox.messages, self._untold_by_siblings(self._clock())]
        return passed(key, found, untold)

    # -- the end

    def leave(self) -> None:
        """Send and receive nothing more: another process of this box takes over."""
        self._left = True

    def count_as(self, name: bytes) -> None:
        """Count as one box with all processes that have this name."""
        self._talk.counted_as = name
        self._family = name.hex()

    def close(self) -> None:
        """Send the unsent changes, if the server is there, and close the connections.

        This takes CLOSE_S at most, whatever the server does.
        """
        self._under_way = None
        # The last message may not have arrived, or only in part. To send it twice does no harm.
        self.outbox.failed()
        message = self.outbox.take() if self.outbox and not self._left else None
        is_told: list[bool] = []

        def last() -> None:
            with contextlib.suppress(Exception):  # the rest must be closed
                if message is not None:
                    self._talk.round(Round(self.heard.place, message, wall=self._wall()))
                    is_told.append(True)
                if not self._left and self.siblings is None:
                    self._talk.leave()
            self._talk.close()

        if not self._writer.finish(last, CLOSE_S):
            self._talk.abort()
        self.reads.close()
        if is_told:
            self.outbox.done(self._clock())
            if self.siblings is not None:
                self.siblings.told(self.siblings.position)
        else:
            self.outbox.failed()

    # -- looking in

    def away(self, now: float) -> str:
        """Return why the server is not used; "" if it is, or if this box has only just begun."""
        return self.pace.away(now)

    def set_max_stale(self, seconds: float) -> None:
        """Use another `--max-stale`."""
        self._talk.max_stale_s = self.reads.reader.max_stale_s = seconds

    def stats(self) -> dict[str, Any]:
        """Return all figures."""
        figures, reads = self._figures, self.reads
        return {
            "connected": int(self.is_in_touch),
            "boxes": self.boxes,
            "reads": reads.reads,
            "hits": reads.hits,
            "reads_late": reads.late,
            "reads_refused": reads.refused,
            "written": figures["written"],
            "bodies_written": figures["bodies_written"],
            "dropped": self.writes.dropped,
            "waiting": len(self.writes),
            "bytes_sent": figures["bytes_sent"],
            "bytes_received": reads.reader.bytes_received,
            "changes_told": figures["changes_told"],
            "changes_heard": figures["changes_heard"],
            "changes_lost": self.outbox.lost,
            "failures": figures["failures"] + reads.failures,
            "unreadable": figures["unreadable"] + reads.reader.unreadable,
            "trouble": self.pace.trouble,
        }
