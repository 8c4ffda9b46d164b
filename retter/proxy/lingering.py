"""Lingering close: data of a client after its last response is read and dropped, within limits.

A client may send a whole upload before it reads the response, for example an early 401 or 413. If
the connection was closed at once, it would be reset, and the client might lose the response (RFC
9112 section 9.6). So only the sending side is closed, and the data is read, slowly enough to cost
little CPU time.
"""

from typing import Protocol

# The total time, as in nginx (lingering_time). At 10 Mbit/s, that is an upload of 35 MiB.
LINGER_S = 30.0
# The time for the next piece. A client that has read its response closes, and one that is silent
# for this long has stopped sending. nginx waits for 5 s, but does not have a limit of connections.
LINGER_SILENCE_S = 2.0
# A client that sends more than this does not look for a response while it sends.
LINGER_BYTES_MAX = 256 * 1024 * 1024

# Read from one client in one tick (0.05 s): 20 MiB a second, more than most lines carry.
CLIENT_BYTES_PER_TICK = 1024 * 1024
# Read from all clients in one tick: 80 MiB a second, for 2 % of a processor.
BYTES_PER_TICK = 4 * CLIENT_BYTES_PER_TICK
# Each piece counts as at least this much: 5,000 pieces a second, for 3 % of a processor.
PIECE_BYTES_MIN = 16 * 1024
# This many paused clients may continue in each tick: a piece is 256 KiB at most.
RESUMED_MAX = 16


class LingeringClient(Protocol):
    """A client connection."""

    def read_on(self) -> None:
        """Read again."""
        ...


class Leftover:
    """The data from one client after its last response."""

    __slots__ = ("_left", "_tick", "_tick_left", "_until")

    def __init__(self, now: float) -> None:
        self._until = now + LINGER_S
        self._left = LINGER_BYTES_MAX
        self._tick = -1  # the tick that `_tick_left` belongs to
        self._tick_left = 0  # octets that may still be read in it

    def drop(self, octets: int) -> bool:
        """Count dropped octets; False if there have been too many."""
        self._left -= octets
        return self._left >= 0

    def deadline(self, now: float) -> float:
        """Return the time limit for the next piece."""
        return min(now + LINGER_SILENCE_S, self._until)

    def take(self, octets: int, tick: int) -> bool:
        """Count read octets; False if the client has used its share of this tick."""
        if tick != self._tick:
            self._tick = tick
            self._tick_left = CLIENT_BYTES_PER_TICK
        self._tick_left -= octets
        return self._tick_left > 0


class LingerPace:
    """The pace of reading from all lingering clients."""

    __slots__ = ("_left", "_paused", "_ticks")

    def __init__(self) -> None:
        self._left = BYTES_PER_TICK
        self._paused: dict[LingeringClient, None] = {}  # the longest paused first
        self._ticks = 0

    def __len__(self) -> int:
        return len(self._paused)

    def may_read_on(self, client: LingeringClient, leftover: Leftover, octets: int) -> bool:
        """Count read octets; False if the client must pause until `read_on` is called."""
        octets = max(octets, PIECE_BYTES_MIN)
        self._left -= octets
        if leftover.take(octets, self._ticks) and self._left > 0:
            return True
        self._paused[client] = None
        return False

    def forget(self, client: object) -> None:
        """Forget a client whose connection is closed."""
        self._paused.pop(client, None)  # type: ignore[call-overload]

    def tick(self) -> None:
        """Continue the clients that have paused longest."""
        self._ticks += 1
        self._left = BYTES_PER_TICK
        for client in list(self._paused)[:RESUMED_MAX]:
            del self._paused[client]
            client.read_on()
