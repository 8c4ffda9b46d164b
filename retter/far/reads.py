"""Requests that wait for what other boxes have stored: for 20 ms at most.

A thread reads for all of them. A request for a key that is being read waits for the same read.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, cast

from retter.far.rounds import Read, Reader
from retter.far.server import Away
from retter.far.thread import JobThread
from retter.store.write_behind import Found

# A visitor waits for the server for this long at most. After that the key counts as absent.
READ_WAIT_S: Final = 0.02
# After a read that came too late or failed, nobody waits for this long.
READ_REST_S: Final = 1.0
# A read that takes longer is aborted: a server may send one octet at a time for ever.
READ_MAX_S: Final = 1.0
# Requests that wait at a time, and keys of one read.
READS_MAX: Final = 256
READ_KEYS_MAX: Final = 64
# A key that the server does not have is not asked for again for this long.
ABSENT_S: Final = 5.0
ABSENT_MAX: Final = 4096

Ask = Callable[[dict[bytes, Found]], None]


class _Wait:
    """A request that waits for what is stored under its keys."""

    __slots__ = ("_asks", "is_done", "keys", "until")

    def __init__(self, keys: list[bytes], asks: Ask, until: float) -> None:
        self.keys = keys
        self.until = until
        self.is_done = False
        self._asks = asks

    def asks(self, found: dict[bytes, Found]) -> None:
        """Pass the entries that were found to the request; called once."""
        if not self.is_done:
            self.is_done = True
            self._asks(found)


class Reads:
    """All reads of one box.

    Args:
        call_later: Calls a function after some seconds; it may be late by a tick.
        passes: Returns what was read under a key as the known changes leave it; None if removed.
        personal: Also read responses of owners.
    """

    def __init__(
        self,
        reader: Reader,
        thread: JobThread,
        clock: Callable[[], float],
        wall: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        passes: Callable[[bytes, Read], Found | None],
        *,
        personal: bool,
    ) -> None:
        self.reader = reader
        self._thread = thread
        self._clock = clock
        self._wall = wall
        self._call_later = call_later
        self._passes = passes
        self._personal = personal
        self._waits: list[_Wait] = []
        self._reading_for: list[_Wait] = []
        self._reading_keys: frozenset[bytes] = frozenset()
        self._began_at: float | None = None  # of the read that is under way
        self._timer_set = False
        self._absent: OrderedDict[int, float] = OrderedDict()  # until when, by the hash of the key
        self._not_before = 0.0
        self.reads = 0
        self.hits = 0
        self.late = 0
        self.refused = 0
        self.failures = 0

    def warm(self) -> None:
        """Open the connection before a visitor needs it."""
        self._thread.submit(self.reader.warm, lambda _: None)

    def wants(self, keys: list[bytes]) -> list[bytes]:
        """Return which of these keys are worth a read."""
        now = self._clock()
        if now < self._not_before:
            return []
        if len(self._waits) + len(self._reading_for) >= READS_MAX:
            self.refused += 1
            return []
        return [
            key
            for key in keys
            if (self._personal or not key.startswith(b"@"))
            and now >= self._absent.get(hash(key), 0.0)
        ]

    def load(self, keys: list[bytes], asks: Ask) -> None:
        """Read keys; `asks` is called with the entries found, or after READ_WAIT_S with none."""
        wait = _Wait(keys, asks, self._clock() + READ_WAIT_S)
        self.reads += 1
        if self._began_at is not None and self._reading_keys.issuperset(keys):
            self._reading_for.append(wait)
        else:
            self._waits.append(wait)
        if not self._timer_set:
            self._timer_set = True
            self._call_later(READ_WAIT_S, self._on_timer)
        if self._began_at is None:
            self._read()

    def absent(self, key: bytes) -> None:
        """Do not read a key again for a while."""
        self._absent[hash(key)] = self._clock() + ABSENT_S
        self._absent.move_to_end(hash(key))
        if len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)

    def tick(self, now: float) -> None:
        """End the waits that are too long. Called on every tick."""
        if self._began_at is not None and now >= self._began_at + READ_MAX_S:
            self.reader.abort()
        if self._waits or self._reading_for:
            self._end_late(now)

    def close(self) -> None:
        """Close the connection; nobody waits for the server any more."""
        if not self._thread.finish(self.reader.close, 0.0):
            self.reader.abort()

    # -- one read

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
        now, wall = self._clock(), self._wall()
        self._reading_keys, self._began_at = frozenset(wanted), now
        self._thread.submit(
            lambda: self.reader.read(wanted, now, wall),
            lambda result: self._read_done(wanted, result),
        )

    def _read_done(self, wanted: list[bytes], result: Any) -> None:
        waits, self._reading_for = self._reading_for, []
        self._began_at = None
        found: dict[bytes, Found] = {}
        if isinstance(result, dict):
            read = cast("dict[bytes, Read]", result)
            for key in wanted:
                passed = self._passes(key, read[key]) if key in read else None
                if passed is not None:
                    found[key] = passed
                else:
                    self.absent(key)
        else:
            self.failures += 1
            waits += self._rest()
        try:
            self._answer(waits, found)
        finally:
            if self._waits and self._began_at is None:
                self._read()
        if not isinstance(result, (dict, Away)):
            raise result

    def _answer(self, waits: list[_Wait], found: dict[bytes, Found]) -> None:
        """Pass its entries to each request.

        Raises:
            Exception: The first fault of a request, after all others have been called.
        """
        fault: Exception | None = None
        for wait in waits:
            own = {key: found[key] for key in wait.keys if key in found}
            self.hits += bool(own)
            try:
                wait.asks(own)
            except Exception as error:  # noqa: BLE001 - the others wait too
                fault = fault or error
        if fault is not None:
            raise fault

    def _rest(self) -> list[_Wait]:
        """Accept no waits for a while; return the requests that wait now."""
        self._not_before = self._clock() + READ_REST_S
        waits, self._waits = self._waits, []
        return waits

    # -- what is late

    def _on_timer(self) -> None:
        self._timer_set = False
        try:
            self._end_late(self._clock())
        finally:
            waits = [*self._reading_for, *self._waits]
            if waits and not self._timer_set:
                self._timer_set = True
                self._call_later(max(0.001, waits[0].until - self._clock()), self._on_timer)

    def _end_late(self, now: float) -> None:
        waits = [*self._reading_for, *self._waits]
        if not waits or min([wait.until for wait in waits]) > now:
            return
        self.late += len(waits)
        self._reading_for = []
        self._rest()
        self._answer(waits, {})
