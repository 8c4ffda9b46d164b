"""A server in memory, and a store with it behind; threads and clocks are the test's."""

import bisect
from collections.abc import Callable
from math import inf
from typing import Any

from retter.far.keys import Keys
from retter.far.server import Away, Command
from retter.far.shelf import FarShelf
from retter.store.owner import OwnerRules
from retter.store.policy import Identity
from retter.store.store import ResponseStore, StoreRules
from retter.store.write_behind import Found, Removals
from tests.support.disk import Clock, Immediately

SECRET = b"a secret that all boxes know: 123"


class FakeServer:
    """The commands of Redis that boxes use, as far as they use them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.values: dict[bytes, Any] = {}
        self.expires: dict[bytes, float] = {}
        self.trouble = ""  # why every command fails
        self.refuses: frozenset[str] = frozenset()  # commands that fail
        self.takes = inf  # so many commands come, and the rest is lost with the box that sent it
        self.commands: list[Command] = []
        self.trips = 0
        self.aborts = 0

    # -- as retter/far/server.py

    def run(self, commands: list[Command]) -> list[Any]:
        self.trips += 1
        refused = [name for name, *_ in commands if name in self.refuses]
        if self.trouble:
            raise Away(self.trouble)
        lost = len(commands) > self.takes
        commands = commands[: int(min(self.takes, len(commands)))]
        self.takes -= len(commands)
        self.commands += commands
        for name in [name for name, at in self.expires.items() if at <= self.clock.now]:
            self.drop(name)
        answers = [
            getattr(self, f"_{str(name).lower()}")(*arguments)
            for name, *arguments in commands
            if name not in refused
        ]
        if lost:
            raise Away("the box is dead")
        if refused:
            raise Away(f"this user may not run {refused[0]}")
        return answers

    def close(self) -> None:
        pass

    def abort(self) -> None:
        self.aborts += 1

    # -- for tests

    def flush(self) -> None:
        self.values.clear()
        self.expires.clear()

    def drop(self, name: bytes) -> None:
        self.values.pop(name, None)
        self.expires.pop(name, None)

    def of_kind(self, kind: str) -> dict[bytes, Any]:
        """Return values by the kind that stands in their names."""
        return {n: v for n, v in self.values.items() if n.split(b":")[3] == kind.encode()}

    def dump(self) -> bytes:
        """Return all that can be read there."""
        return repr(self.values).encode() + b"".join(
            [value for value in self.values.values() if isinstance(value, bytes)]
        )

    # -- commands

    def _ping(self) -> bytes:
        return b"PONG"

    def _time(self) -> list[bytes]:
        wall = self.clock.wall()
        return [b"%d" % int(wall), b"%d" % int(wall % 1 * 1e6)]

    def _set(self, name: bytes, value: bytes, ex: str, seconds: int) -> bytes:
        assert ex == "EX" and seconds > 0
        self.values[name] = value
        self.expires[name] = self.clock.now + seconds
        return b"OK"

    def _mget(self, *names: bytes) -> list[bytes | None]:
        return [self.values.get(name) for name in names]

    def _expire(self, name: bytes, seconds: int) -> int:
        if name not in self.values:
            return 0
        self.expires[name] = self.clock.now + seconds
        return 1

    def _unlink(self, *names: bytes) -> int:
        for name in names:
            self.drop(name)
        return len(names)

    def _rpush(self, name: bytes, *values: bytes) -> int:
        self.values.setdefault(name, []).extend(values)
        return len(self.values[name])

    def _ltrim(self, name: bytes, first: int, last: int) -> bytes:
        assert last == -1
        self.values[name] = self.values[name][first:]
        return b"OK"

    def _lrange(self, name: bytes, first: int, last: int) -> list[bytes]:
        assert (first, last) == (0, -1)
        return list(self.values.get(name, []))

    def _zadd(self, name: bytes, score: int, member: bytes) -> int:
        self.values.setdefault(name, {})[member] = score
        return 1

    def _zrem(self, name: bytes, member: bytes) -> int:
        return int(self.values.get(name, {}).pop(member, None) is not None)

    def _zremrangebyscore(self, name: bytes, low: int, high: int) -> int:
        members = self.values.get(name, {})
        gone = [member for member, score in members.items() if low <= score <= high]
        for member in gone:
            del members[member]
        return len(gone)

    def _zcard(self, name: bytes) -> int:
        return len(self.values.get(name, {}))

    def _xadd(self, name: bytes, *arguments: Any) -> bytes | None:
        maxlen, about, kept, place, field, value = arguments
        assert (maxlen, about) == ("MAXLEN", "~")
        assert isinstance(place, bytes)
        milliseconds, _, sequence = place.partition(b"-")
        number = int(milliseconds), int(sequence)
        before = self.values.setdefault(name, [])
        if before and number <= before[-1][0]:
            return None
        before.append((number, [field.encode(), value]))
        del before[:-kept]
        return place

    def _xlen(self, name: bytes) -> int:
        return len(self.values.get(name, []))

    def _xrange(
        self, name: bytes, first: bytes | str, last: str, word: str, count: int
    ) -> list[Any]:
        assert (last, word) == ("+", "COUNT")
        entries = self.values.get(name, [])
        if isinstance(first, str):
            assert first == "-"
            return [[b"%d-%d" % number, fields] for number, fields in entries[:count]]
        assert first[:1] == b"("
        milliseconds, _, sequence = first[1:].partition(b"-")
        at = bisect.bisect_right([one[0] for one in entries], (int(milliseconds), int(sequence)))
        return [[b"%d-%d" % number, fields] for number, fields in entries[at : at + count]]

    def _xrevrange(self, name: bytes, *_: object) -> list[Any]:
        return [[b"%d-%d" % number, fields] for number, fields in self.values.get(name, [])[-1:]]


class Timers:
    """What is to be called later; the test calls it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.waiting.append((seconds, callback))

    def ring(self) -> None:
        """Let all of them ring."""
        waiting, self.waiting = self.waiting, []
        for _, callback in waiting:
            callback()


def shelf_of(server: FakeServer, clock: Clock, box: str, **how: Any) -> FarShelf:
    """Return the shelf of one box."""
    how.setdefault("reader", Immediately())
    how.setdefault("writer", Immediately())
    how.setdefault("call_later", Timers().call_later)
    return FarShelf(
        how.pop("keys", None) or Keys(SECRET),
        how.pop("server", server),
        how.pop("reading_server", server),
        how.pop("reader"),
        how.pop("writer"),
        clock.monotonic,
        how.pop("wall", clock.wall),
        how.pop("call_later"),
        how.pop("max_stale_s", 1000.0),
        box=box,
        **how,
    )


class Box:
    """One of several stores in front of one application."""

    def __init__(self, server: FakeServer, clock: Clock, name: str, **how: Any) -> None:
        from retter.proxy.follower import Follower

        self.clock = clock
        self.shelf = shelf_of(server, clock, name, **how)
        keys = self.shelf.keys
        self.rules = OwnerRules(secret=keys.owner, lasting=True, origin=name.encode())
        limits = StoreRules(secret=keys.owner, public_secret=keys.public, max_stale_s=1000.0)
        self.store = ResponseStore(limits)
        self.store.lineages = self.rules.lineages
        follower = Follower(None)
        follower.listeners.append(self.shelf)
        self.store.put_behind(follower)
        self.heard: list[Removals] = []
        shelves = self.store.shelves
        self.shelf.writes.slot_of = lambda key: (shelves.slots.get(key, ()), shelves.marks_of(key))
        self.shelf.on_message = self._take

    def _take(self, message: Any) -> None:
        if message.removals:
            self.heard.append(message.removals)
            self.store.invalidation.take_back(message.removals, self.clock.now)

    def tick(self) -> None:
        self.store.free_some()
        self.shelf.tick(self.clock.now)

    def look(self, identity: Identity) -> None:
        """Read what a request needs, as one does that would be refused without."""
        keys = self.shelf.wants(self.store.awaited_keys(identity))
        if keys:
            self.shelf.load(keys, self._promote)

    def _promote(self, found: dict[bytes, Found]) -> None:
        for key, one in found.items():
            self.store.shelves.promote(key, one)

    def forget(self) -> None:
        """Have nothing in memory, as if others had pushed all of it out."""
        self.store.invalidation.drop_keys(list(self.store.shelves.slots))
        self.store.shelves.free_all()
        while self.store.shelves._hidden:
            self.store.free_some()


def settle(clock: Clock, *boxes: Box, seconds: float = 1.0) -> None:
    """Let time pass until all have told and heard everything."""
    for _ in range(round(seconds / 0.05)):
        clock.now += 0.05
        for box in boxes:
            box.tick()
