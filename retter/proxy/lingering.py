"""Lingering close: what clients send after their last response is dropped, within bounds.

A client may send all of an upload before it reads the answer, which says 401 or 413 and came early.
Closed at once, the connection would be reset, and the reset can take the answer with it (RFC 9112
section 9.6). So the sending side alone is closed, and what comes is read, slowly enough that nobody
has much of the processor for it.
"""

from typing import Protocol

# nginx waits as long in all (lingering_time). Over 10 Mbit/s, that is an upload of 35 MiB.
LINGER_S = 30.0
# And so long for the next piece: a client that has its answer closes, and one that is silent for so
# long has stopped sending. nginx waits for 5 s, but has no limit to its connections in front of it.
LINGER_SILENCE_S = 2.0
# Whoever sends more has not looked for an answer for longer than an upload of that size takes.
LINGER_BYTES_MAX = 256 * 1024 * 1024

# Read from one client with one tick (0.05 s): 20 MiB a second, more than most lines carry.
CLIENT_BYTES_PER_TICK = 1024 * 1024
# And from all: 80 MiB a second, for 2 % of a processor.
BYTES_PER_TICK = 4 * CLIENT_BYTES_PER_TICK
# Each piece is counted as so much at least: 5,000 of them a second, for 3 % of a processor.
PIECE_BYTES_MIN = 16 * 1024
# So many may go on with each tick, of those that had to stop: a piece is 256 KiB at most.
RESUMED_MAX = 16


class Client(Protocol):
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
        self._tick = -1  # for which
        self._tick_left = 0  # so much may still be read

    def drop(self, octets: int) -> bool:
        """Count dropped octets; False if there have been too many."""
        self._left -= octets
        return self._left >= 0

    def deadline(self, now: float) -> float:
        """Return until when the next piece has to come."""
        return min(now + LINGER_SILENCE_S, self._until)

    def take(self, octets: int, tick: int) -> bool:
        """Count read octets; False if the client has had its share of this tick."""
        if tick != self._tick:
            self._tick = tick
            self._tick_left = CLIENT_BYTES_PER_TICK
        self._tick_left -= octets
        return self._tick_left > 0


class LingerPace:
    """How fast all of it is read."""

    __slots__ = ("_left", "_paused", "_ticks")

    def __init__(self) -> None:
        self._left = BYTES_PER_TICK
        self._paused: dict[Client, None] = {}  # who waits longest first
        self._ticks = 0

    def __len__(self) -> int:
        return len(self._paused)

    def may_read_on(self, client: Client, leftover: Leftover, octets: int) -> bool:
        """Count what has been read; if False, the client is told by `read_on` when to go on."""
        octets = max(octets, PIECE_BYTES_MIN)
        self._left -= octets
        if leftover.take(octets, self._ticks) and self._left > 0:
            return True
        self._paused[client] = None
        return False

    def forget(self, client: object) -> None:
        """The client's connection is closed."""
        self._paused.pop(client, None)  # type: ignore[call-overload]

    def tick(self) -> None:
        """Let those go on that have waited longest."""
        self._ticks += 1
        self._left = BYTES_PER_TICK
        for client in list(self._paused)[:RESUMED_MAX]:
            del self._paused[client]
            client.read_on()
