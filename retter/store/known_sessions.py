"""Sessions that the application has begun: a client with such a session is known to it.

A session in a request proves nothing, because anybody can invent one. So a session counts if RETTER
has seen the application set it. If RETTER has not seen that (for example after a restart), the
session counts for less, and only after responses have been stored for it for some time.

A session is identified by the mark of its value (owner.py), which nobody outside can predict. The
tables are bounded: the least recently used session of a full table is forgotten.
"""

from collections import OrderedDict
from itertools import repeat
from typing import Final, Protocol

ISSUED_MAX: Final = 8192  # sessions in use that the application has set. 150 bytes each
GIVEN_MAX: Final = 4096  # set, but not used yet: a crawler without cookies gets one each time
# With stored responses, but not seen to be set; 120 bytes each. They are in two halves: when the
# young one is full, it becomes the old one. A session that is used again goes to the young one. An
# OrderedDict, which moves a session with each use, reads and writes three neighbours of it, and for
# thousands of visitors none of them is in a cache.
KEPT_MAX: Final = 8192
# A session that was not seen to be set counts after this time. Nobody waits so long for each of
# thousands of invented sessions.
KEPT_S: Final = 60.0

UNKNOWN: Final = 0
KEPT: Final = 1  # it has had stored responses of its own for KEPT_S
ISSUED: Final = 2  # the application has set it


class Told(Protocol):
    """Receives what this process learns of sessions (shared_sessions.py)."""

    def name(self, name: bytes) -> None:
        """The application sets sessions with this name."""
        ...

    def begun(self, session: bytes) -> None:
        """The application has set a value for a visitor who did not have it."""
        ...

    def shared(self, session: bytes) -> None:
        """Several visitors have a value."""
        ...

    def known(self, mark: int, table: str, since: float) -> None:
        """A session is in a table, as in `KnownSessions.know`."""
        ...


class KnownSessions:
    """The known sessions, by their marks.

    Attributes:
        told: Receives each change.
    """

    __slots__ = ("_given", "_issued", "_kept", "_old_kept", "told")

    def __init__(self) -> None:
        self.told: Told | None = None
        self._issued: OrderedDict[int, None] = OrderedDict()
        self._given: OrderedDict[int, None] = OrderedDict()
        self._kept: dict[int, float] = {}  # since when
        self._old_kept: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._issued) + len(self._given) + len(self._kept) + len(self._old_kept)

    def issued(self, count: int) -> list[int]:
        """Return this many sessions in use that the application has set: the last used ones."""
        return list(self._issued)[-count:]

    def restore(self, mark: int) -> None:
        """Add a session that an earlier process has seen the application set, and a visitor use."""
        if len(self._issued) < ISSUED_MAX:
            self._issued[mark] = None

    def all_marks(self) -> list[tuple[int, str, float]]:
        """Return each mark, its table and the time since it is kept; for another process."""
        # The event loop waits for this: `zip` takes a fifth of the time of a comprehension.
        return [
            *zip(self._issued, repeat("issued"), repeat(0.0)),
            *zip(self._given, repeat("given"), repeat(0.0)),
            *zip(self._old_kept, repeat("kept"), self._old_kept.values()),
            *zip(self._kept, repeat("kept"), self._kept.values()),
        ]

    def know(self, mark: int, table: str, since: float) -> None:
        """Add a session as another process has it in its table."""
        if table == "given":
            self.given(mark)
        elif table == "kept":
            if mark not in self._old_kept and len(self._kept) < KEPT_MAX // 2:
                self._kept.setdefault(mark, since)
        else:
            self._given.pop(mark, None)
            self._forget_kept(mark)
            self.restore(mark)

    def given(self, mark: int) -> None:
        """Note that the application has set a session."""
        if mark not in self._issued:
            if self.told is not None and mark not in self._given:
                self.told.known(mark, "given", 0.0)
            self._given[mark] = None
            if len(self._given) > GIVEN_MAX:
                self._given.popitem(last=False)

    def answered(self, marks: tuple[int, ...], now: float, has_more: bool = True) -> None:
        """Note that the response to a request with these sessions was stored for its owner.

        Args:
            has_more: Its owner has a stored response already. The first one says nothing of a
                session that was not seen to be set: who makes up one for each request would fill
                the table, and to note each takes 2,500 instructions of the processor.
        """
        for mark in marks:
            if mark in self._issued:
                self._issued.move_to_end(mark)
                return
            if mark in self._given:
                del self._given[mark]
                self._forget_kept(mark)
                self._issued[mark] = None
                if len(self._issued) > ISSUED_MAX:
                    self._issued.popitem(last=False)
                if self.told is not None:
                    self.told.known(mark, "issued", 0.0)
                return
        if has_more and marks:
            self._keep(marks[0], now)

    def _keep(self, mark: int, now: float) -> None:
        kept = self._kept
        if mark in kept:
            return
        since = self._old_kept.pop(mark, None)
        if len(kept) >= KEPT_MAX // 2:
            self._old_kept, self._kept = kept, {}
        self._kept[mark] = now if since is None else since
        if since is None and self.told is not None:
            self.told.known(mark, "kept", now)

    def _forget_kept(self, mark: int) -> None:
        self._kept.pop(mark, None)
        self._old_kept.pop(mark, None)

    def standing_of(self, marks: tuple[int, ...], now: float) -> tuple[int, int]:
        """Return ISSUED, KEPT or UNKNOWN, and the mark that decides it (0 for UNKNOWN)."""
        for mark in marks:
            if mark in self._issued or mark in self._given:
                return ISSUED, mark
        if marks:
            since = self._kept.get(marks[0], self._old_kept.get(marks[0]))
            if since is not None and now - since >= KEPT_S:
                return KEPT, marks[0]
        return UNKNOWN, 0
