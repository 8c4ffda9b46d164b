"""The dialogue with the server: send and receive changes, write responses and read them.

Everything here runs in a thread and may wait for the server. Names at the server, after the prefix:

- `e:HASH`: the responses under a key, sealed
- `b:HASH`: a body, sealed
- `d:HASH`: the place of the last change that dropped a key, an owner or a session
- `s:HASH`: the place of the last change that superseded a key
- `changes`: a stream of the last changes, sealed
- `boxes`: a sorted set of the boxes, by the time of their last heartbeat
- `purges`, `orders` and `names`: lists of older changes that a new box must know, sealed
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from retter.far.changes import (
    NO_PLACE,
    PLACE_BYTES,
    Message,
    id_of,
    mark_name,
    message_of,
    next_place,
    place_of,
)
from retter.far.keys import Keys
from retter.far.records import (
    Packed,
    deflater,
    opened,
    opened_body,
    packed,
    packed_body,
    with_bodies,
)
from retter.far.server import Away, Command, Server
from retter.store.write_behind import Found, Purge, Removals, Slot, marked_superseded

# The stream keeps about this many changes, for boxes that were away for a while. A change takes 300
# to 500 bytes.
CHANGES_KEPT: Final = 4096
CHANGES_READ_MAX: Final = 1024  # in one round

PURGES_KEPT: Final = 64
ORDERS_KEPT: Final = 16
NAMES_KEPT: Final = 256

# A box without a heartbeat for this long is not counted.
BOX_SILENT_S: Final = 5.0
BOXES_TTL_S: Final = 60

ORDERS_TTL_S: Final = 24 * 3600  # no order is longer (controls.py)

# Notes of changes must outlive the responses that they concern.
NOTES_LONGER_S: Final = 3600

# So often a box looks for a place after all others, while other boxes tell changes too.
PLACES_TRIED_MAX: Final = 8

_EVERYTHING, _PERSONAL = b"everything", b"personal"


@dataclass(slots=True)
class Round:
    """The requests of a box to the server."""

    place: bytes  # of the last change that it has received
    message: Message | None = None
    slots: list[tuple[bytes, Slot, tuple[int, ...]]] = field(
        default_factory=list[tuple[bytes, Slot, tuple[int, ...]]]
    )
    beats: bool = False
    now: float = 0.0  # monotonic seconds
    wall: float = 0.0  # of the same moment, by this machine's clock


@dataclass(slots=True)
class RoundResult:
    """The result of a round."""

    messages: list[tuple[bytes, Message]] = field(default_factory=list[tuple[bytes, Message]])
    purges: list[tuple[bytes, Purge]] = field(default_factory=list[tuple[bytes, Purge]])
    place: bytes = NO_PLACE
    complete: bool = True  # there are no more changes to be read
    boxes: int = 0  # 0: not counted in this round
    began: bool = False  # a connection was made
    written: int = 0  # entries
    bodies: int = 0
    bytes_sent: int = 0
    unreadable: int = 0  # values that were not made with this secret


class Read(NamedTuple):
    """The responses under a key, and the place of the last change that their box knew."""

    found: Found
    heard: bytes


class Conversation:
    """The rounds of one box.

    Attributes:
        counted_as: The name under which the box is counted: the same for all its processes.
        clock_s: The server's clock less this machine's, in seconds.
    """

    def __init__(self, keys: Keys, server: Server, box: str, max_stale_s: float) -> None:
        self._keys = keys
        self._server = server
        self.counted_as = box.encode()
        self.max_stale_s = max_stale_s
        self._connected = False
        self._compress = deflater()
        self.clock_s = 0.0

    def _named(self, name: bytes) -> bytes:
        return self._keys.prefix + name

    # -- a round

    def round(self, asked: Round) -> RoundResult:
        """Send and receive changes, send a heartbeat, and write responses.

        Raises:
            Away: The server cannot be used. A part of the round may have been done.
        """
        try:
            outcome = RoundResult(place=asked.place)
            if not self._connected:
                self._begin(outcome, asked.wall)
            self._tell(asked, outcome)
            if asked.slots:
                self._write(asked, outcome)
        except Exception:
            self._connected = False
            self._server.close()
            raise
        self._connected = True
        return outcome

    def _begin(self, outcome: RoundResult, wall: float) -> None:
        lists = [self._named(name) for name in (b"purges", b"orders", b"names")]
        clock, *found = self._server.run([("TIME",), *[("LRANGE", name, 0, -1) for name in lists]])
        self._set_clock(clock, wall)
        outcome.began = True
        outcome.purges += self._purges_of(found[0], outcome)
        for name, values in zip(lists[1:], found[1:], strict=True):
            for value in values:
                self._hear(NO_PLACE, name, value, outcome)

    def _set_clock(self, answer: Any, wall: float) -> None:
        self.clock_s = int(answer[0]) + int(answer[1]) / 1e6 - wall

    def _hear(self, place: bytes, name: bytes, value: bytes, outcome: RoundResult) -> bool:
        """Take a message; return whether it is one."""
        data = self._keys.opened(name, value)
        message = None if data is None else message_of(data)
        if message is None:
            outcome.unreadable += 1
            return False
        outcome.messages.append((place, message))
        return True

    def _purges_of(self, values: list[bytes], outcome: RoundResult) -> list[tuple[bytes, Purge]]:
        name = self._named(b"purges")
        purges = [self._purge_of(self._keys.opened(name, value)) for value in values]
        outcome.unreadable += purges.count(None)
        return [one for one in purges if one is not None]

    def _purge_of(self, data: bytes | None) -> tuple[bytes, Purge] | None:
        if data is None:
            return None
        try:
            texts = json.loads(data[PLACE_BYTES:])
            url, prefix, owner = [None if one is None else bytes.fromhex(one) for one in texts]
        except (ValueError, TypeError):
            return None  # of a later version
        return data[:PLACE_BYTES], Purge(url, prefix, owner)

    def _tell(self, asked: Round, outcome: RoundResult) -> None:
        stream = self._named(b"changes")
        commands: list[Command] = self._beat(asked) if asked.beats else []
        commands.append(
            ("XRANGE", stream, b"(" + id_of(asked.place), "+", "COUNT", CHANGES_READ_MAX)
        )
        if asked.message is None:
            answers = self._server.run(commands)
        else:
            answers = self._run_with_message(asked, asked.message, commands)
        if asked.beats:
            clock, _, _, _, count, length, oldest, newest = answers[-9:-1]
            self._set_clock(clock, asked.wall)
            outcome.boxes = int(count)
            # Without a change in the stream, the next one comes after this moment.
            now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
            last = place_of(newest[0][0] if newest else b"%d" % now_ms)
            if last < asked.place:
                # The server has lost its data, and its clock is behind: everything is new.
                outcome.place = NO_PLACE
                outcome.complete = False
                return
            if asked.place != NO_PLACE and length >= CHANGES_KEPT:
                self._miss(asked.place, place_of(oldest[0][0]), outcome)
        entries, now = answers[-1], place_of(b"%d" % self._now_ms(asked))
        for stream_id, fields in entries:
            place, value = place_of(stream_id), dict(zip(fields[::2], fields[1::2], strict=True))
            # What no box has told may have an id after all that boxes will ever tell. A response
            # that counts as written after that would outlive the next logouts.
            if self._hear(place, stream, value.get(b"m", b""), outcome) or place <= now:
                outcome.place = place
        outcome.complete = len(entries) < CHANGES_READ_MAX
        if not outcome.complete and outcome.place == asked.place:
            raise Away("its stream of changes is full of what no box has told: delete it")

    def _beat(self, asked: Round) -> list[Command]:
        """Return the commands that send a heartbeat and count the boxes."""
        stream, boxes = self._named(b"changes"), self._named(b"boxes")
        now_ms = self._now_ms(asked)
        return [
            ("TIME",),
            ("ZADD", boxes, now_ms, self.counted_as),
            ("ZREMRANGEBYSCORE", boxes, 0, now_ms - int(BOX_SILENT_S * 1000)),
            ("EXPIRE", boxes, BOXES_TTL_S),
            ("ZCARD", boxes),
            ("XLEN", stream),
            ("XRANGE", stream, "-", "+", "COUNT", 1),
            ("XREVRANGE", stream, "+", "-", "COUNT", 1),
        ]

    def _now_ms(self, asked: Round) -> int:
        return int((asked.wall + self.clock_s) * 1000)

    def _run_with_message(
        self, asked: Round, message: Message, commands: list[Command]
    ) -> list[Any]:
        """Send a message and run commands; return their answers.

        The notes of a change carry its place and come before it: if the box is killed between two
        commands, no change is in the stream whose notes are missing. So the box chooses the place,
        by the server's clock. If another box was faster, it takes the next one.

        Raises:
            Away: The server cannot be used, or others were faster each time.
        """
        stream = self._named(b"changes")
        value = self._keys.seal(stream, message.packed())
        # A clock that was set back, here or there, is no reason to look for a place each time.
        place = max(place_of(b"%d" % self._now_ms(asked)), next_place(asked.place))
        for _ in range(PLACES_TRIED_MAX):
            told = self._notes(message, place)
            told.append(("XADD", stream, "MAXLEN", "~", CHANGES_KEPT, id_of(place), "m", value))
            at = len(told)
            told.append(("EXPIRE", stream, self._notes_ttl_s))
            told += self._lists(message, place)
            answers = self._server.run([*told, *commands])
            if answers[at - 1] is not None:
                self._shorten_purges(message, place, answers[at + 1])
                return answers[len(told) :]
            (newest,) = self._server.run([("XREVRANGE", stream, "+", "-", "COUNT", 1)])
            place = next_place(place_of(newest[0][0]) if newest else place)
        raise Away("other boxes are faster")

    def _miss(self, place: bytes, oldest: bytes, outcome: RoundResult) -> None:
        """Drop responses if the stream no longer has changes that this box has not received.

        The purges are still known. Which sessions have ended is not.
        """
        if place >= oldest:
            return
        keys, purges = self._keys, self._named(b"purges")
        (everything,), values = self._server.run(
            [("MGET", keys.dropped(_EVERYTHING)), ("LRANGE", purges, 0, -1)]
        )
        removals = Removals(everything=everything is not None and everything > place, personal=True)
        missed = [one for one in self._purges_of(values, outcome) if one[0] > place]
        outcome.purges += missed
        removals.purges = [purge for _, purge in missed]
        outcome.messages.append((NO_PLACE, Message("", removals)))

    @property
    def _notes_ttl_s(self) -> int:
        return int(self.max_stale_s) + NOTES_LONGER_S

    def _notes(self, message: Message, place: bytes) -> list[Command]:
        """Return the commands that note a change where readers of a response look."""
        keys, removals = self._keys, message.removals
        gone: list[bytes] = [*removals.owners, *removals.keys, *map(mark_name, removals.marks)]
        if removals.everything:
            gone.append(_EVERYTHING)
        if removals.personal:
            gone.append(_PERSONAL)
        notes = [keys.dropped(one) for one in gone]
        notes += [keys.superseded(key) for key in removals.superseded]
        commands: list[Command] = [("SET", name, place, "EX", self._notes_ttl_s) for name in notes]
        if removals.keys:
            commands.append(("UNLINK", *[keys.entry(key) for key in removals.keys]))
        return commands

    def _lists(self, message: Message, place: bytes) -> list[Command]:
        """Return the commands that note purges, orders and names for later boxes; purges first."""
        commands: list[Command] = []
        if message.removals.purges:
            texts = [
                place + json.dumps([None if one is None else one.hex() for one in purge]).encode()
                for purge in message.removals.purges
            ]
            where = self._named(b"purges")
            commands += [
                ("RPUSH", where, *[self._keys.seal(where, text) for text in texts]),
                ("EXPIRE", where, self._notes_ttl_s),
            ]
        for order in message.orders:
            told = Message(message.box, orders=[order]).packed()
            commands += self._listed(b"orders", told, ORDERS_KEPT, ORDERS_TTL_S)
        for one in message.names:
            told = Message(message.box, names=[one]).packed()
            commands += self._listed(b"names", told, NAMES_KEPT, self._notes_ttl_s)
        return commands

    def _shorten_purges(self, message: Message, place: bytes, length: Any) -> None:
        """Forget the oldest purges if there are too many.

        First, all that was written before the latest one is dropped.

        Args:
            length: Of the list of purges, if the message has some.
        """
        if message.removals.purges and length > PURGES_KEPT:
            self._server.run(
                [
                    ("SET", self._keys.dropped(_EVERYTHING), place, "EX", self._notes_ttl_s),
                    ("LTRIM", self._named(b"purges"), -PURGES_KEPT, -1),
                ]
            )

    def _listed(self, name: bytes, data: bytes, kept: int, ttl_s: int) -> list[Command]:
        where = self._named(name)
        return [
            ("RPUSH", where, self._keys.seal(where, data)),
            ("LTRIM", where, -kept, -1),
            ("EXPIRE", where, ttl_s),
        ]

    def _write(self, asked: Round, outcome: RoundResult) -> None:
        keys, wall = self._keys, asked.wall + self.clock_s
        heard = min(asked.place, outcome.place)
        entries: list[Packed] = []
        commands: list[Command] = []
        for key, slot, marks in asked.slots:
            one = packed(keys, key, slot, marks, heard, asked.now, wall)
            if one is not None:
                entries.append(one)
            else:
                commands.append(("UNLINK", keys.entry(key)))
        bodies = {name: (body, fits) for one in entries for name, body, fits in one.bodies}
        ttl_s = int(self.max_stale_s) + 1
        there = self._server.run([("EXPIRE", keys.body(name), ttl_s) for name in bodies])
        for (name, (body, fits)), known in zip(bodies.items(), there, strict=True):
            if not known:
                value = packed_body(keys, name, body, self._compress if fits else None)
                commands.append(("SET", keys.body(name), value, "EX", ttl_s))
                outcome.bodies += 1
                outcome.bytes_sent += len(value)
        for one in entries:
            commands.append(("SET", one.name, one.value, "EX", one.ttl_s))
            outcome.bytes_sent += len(one.value)
        self._server.run(commands)
        outcome.written = len(entries)

    def leave(self) -> None:
        """Remove this box from the count.

        Raises:
            Away: The server cannot be used.
        """
        if self._connected:
            self._server.run([("ZREM", self._named(b"boxes"), self.counted_as)])

    def close(self) -> None:
        """Close the connection."""
        self._connected = False
        self._server.close()

    def abort(self) -> None:
        """Make the round that runs in another thread fail."""
        self._server.abort()


class Reader:
    """Reads responses.

    Attributes:
        clock_s: The server's clock less this machine's, in seconds.
    """

    def __init__(self, keys: Keys, server: Server, max_stale_s: float) -> None:
        self._keys = keys
        self._server = server
        self.max_stale_s = max_stale_s
        self.clock_s = 0.0
        self.unreadable = 0
        self.bytes_received = 0

    def warm(self) -> None:
        """Open the connection, before a visitor needs it.

        Raises:
            Away: The server cannot be used.
        """
        self._server.run([("PING",)])

    def read(self, wanted: list[bytes], now: float, wall: float) -> dict[bytes, Read]:
        """Return the responses under these keys, in two round trips.

        Raises:
            Away: The server cannot be used.
        """
        keys, wall = self._keys, wall + self.clock_s
        names: list[bytes] = []
        for key in wanted:
            owner = keys.owner_of(key)
            names += [
                keys.entry(key),
                keys.superseded(key),
                keys.dropped(key),
                keys.dropped(_EVERYTHING),
                keys.dropped(owner) if owner else keys.dropped(_EVERYTHING),
                keys.dropped(_PERSONAL) if owner else keys.dropped(_EVERYTHING),
            ]
        (values,) = self._server.run([("MGET", *names)])
        found: dict[bytes, tuple[Any, bytes | None]] = {}
        for number, key in enumerate(wanted):
            value, superseded, *dropped = values[6 * number : 6 * number + 6]
            if value is None:
                continue
            self.bytes_received += len(value)
            one = opened(keys, key, value, now, wall, self.max_stale_s)
            if one is None:
                self.unreadable += 1
            elif all(place is None or place <= one.heard for place in dropped):
                found[key] = one, superseded
        return self._with_bodies(found, now) if found else {}

    def _with_bodies(
        self, found: dict[bytes, tuple[Any, bytes | None]], now: float
    ) -> dict[bytes, Read]:
        keys = self._keys
        names: list[bytes] = []
        for one, _ in found.values():
            names += [keys.dropped(mark_name(mark)) for mark in one.found.marks]
            names += [keys.body(variant.body) for variant in one.found.variants]
        (values,) = self._server.run([("MGET", *names)])
        at = 0
        read: dict[bytes, Read] = {}
        for key, (one, superseded) in found.items():
            marked = len(one.found.marks)
            dropped = values[at : at + marked]
            bodies = values[at + marked : (at := at + marked + len(one.found.variants))]
            if any(place is not None and place > one.heard for place in dropped):
                continue
            whole = self._bodies(one, bodies)
            slot = () if whole is None else with_bodies(one.found, whole, now)
            if slot:
                if superseded is not None and superseded > one.heard:
                    slot = marked_superseded(slot)
                read[key] = Read(Found(slot, one.found.marks), one.heard)
        return read

    def _bodies(self, one: Any, values: list[bytes | None]) -> list[bytes] | None:
        bodies: list[bytes] = []
        for variant, length, value in zip(
            one.found.variants, one.found.body_lengths, values, strict=True
        ):
            if value is None:
                return None
            self.bytes_received += len(value)
            body = opened_body(self._keys, variant.body, value, length)
            if body is None:
                self.unreadable += 1
                return None
            bodies.append(body)
        return bodies

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def abort(self) -> None:
        """Make the read that runs in another thread fail."""
        self._server.abort()
