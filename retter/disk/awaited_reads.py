"""Requests that wait while a thread reads entries that may be on a slow disk.

A disk that hangs must not block all clients: each wait ends after a second, and while a read is
overdue, no other request waits.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from retter.disk.threads import Threads
from retter.store.write_behind import Found

# How long a request waits for the thread. After that, the request counts as having no stored
# response. So do all others, without waiting, until that read has finished.
READ_WAIT_S: Final = 1.0
# Requests that wait for the thread at a time: a disk that hangs must not block all clients.
READS_MAX: Final = 256

Ask = Callable[[dict[bytes, Found]], None]
# The result of a read: an entry, none, or the reason why it could not be read.
Read = Found | Exception | None


class AwaitedReads:
    """Reads keys in a thread for requests that wait.

    Args:
        read: Reads a key, in the thread.
        loaded: Called on the loop with a key and the result of its read; returns what the request
            gets.

    Attributes:
        late: Number of requests that did not get an entry in time.
    """

    __slots__ = ("_asked", "_loaded", "_overdue", "_read", "_thread", "_waiting", "late")

    def __init__(
        self,
        thread: Threads,
        read: Callable[[bytes], Read],
        loaded: Callable[[bytes, Read], Found | None],
    ) -> None:
        self._thread = thread
        self._read = read
        self._loaded = loaded
        self._waiting: dict[int, tuple[float, Ask]] = {}  # requests, and when their wait began
        self._overdue: set[int] = set()  # reads that did not finish in time
        self._asked = 0
        self.late = 0

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._waiting)

    def load(self, keys: list[bytes], asks: Ask, now: float) -> bool:
        """Read keys in the thread; `asks` is called with the entries found.

        After READ_WAIT_S it is called without any.

        Returns:
            False if too many requests wait already, or an earlier read is overdue.
        """
        if self._overdue or len(self._waiting) >= READS_MAX:
            self.late += 1
            return False
        self._asked += 1
        number = self._asked
        self._waiting[number] = (now, asks)
        self._thread.submit(
            lambda: {key: self._read(key) for key in keys},
            lambda result: self._done(number, result),
        )
        return True

    def _done(self, number: int, result: Any) -> None:
        waits = self._waiting.pop(number, None)
        self._overdue.discard(number)
        found: dict[bytes, Found] = {}
        if isinstance(result, dict):  # else the thread could not be started
            for key, read in cast("dict[bytes, Read]", result).items():
                one = self._loaded(key, read)
                if one is not None:
                    found[key] = one
        if waits is not None:
            waits[1](found)

    def close(self) -> None:
        """Wait until all reads are done; no request gets their results."""
        self._thread.close()

    def tick(self, now: float) -> None:
        """End the waits that are too long."""
        for number, (since, asks) in list(self._waiting.items()):
            if now - since < READ_WAIT_S:
                break
            del self._waiting[number]
            self._overdue.add(number)
            self.late += 1
            asks({})
