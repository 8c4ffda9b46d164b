"""Sessions that the application has begun: who carries one is known to it.

That somebody carries a session says nothing, anybody can make one up. So one counts if RETTER has
seen the application set it. One that it has not (RETTER was restarted meanwhile) counts for less,
and only after answers have been stored for it for a while.

A session is known here by the mark of its value (owner.py), which nobody outside can foretell.
Bounded: of each kind the one longest unused is forgotten.
"""

from collections import OrderedDict
from typing import Final

ISSUED_MAX: Final = 8192  # sessions in use that the application has set. 150 bytes each
GIVEN_MAX: Final = 4096  # set, and not used yet: a crawler without cookies is given one each time
KEPT_MAX: Final = 4096  # with stored responses, and not seen to be set
# So long an unseen session must have been there: nobody waits for that with each of thousands.
KEPT_S: Final = 60.0

UNKNOWN: Final = 0
KEPT: Final = 1  # has stored responses of its own for KEPT_S
ISSUED: Final = 2  # the application has set it


class KnownSessions:
    """The sessions that are known, by their marks."""

    __slots__ = ("_given", "_issued", "_kept")

    def __init__(self) -> None:
        self._issued: OrderedDict[int, None] = OrderedDict()
        self._given: OrderedDict[int, None] = OrderedDict()
        self._kept: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._issued) + len(self._given) + len(self._kept)

    def issued(self, count: int) -> list[int]:
        """Return the sessions in use that the application has set: those used last."""
        return list(self._issued)[-count:]

    def restore(self, mark: int) -> None:
        """A process before this one has seen the application set it, and its visitor use it."""
        if len(self._issued) < ISSUED_MAX:
            self._issued[mark] = None

    def all_marks(self) -> list[tuple[int, str, float]]:
        """Return mark, table, and since when it is kept: for another process (handover.py)."""
        return [
            *[(mark, "issued", 0.0) for mark in self._issued],
            *[(mark, "given", 0.0) for mark in self._given],
            *[(mark, "kept", since) for mark, since in self._kept.items()],
        ]

    def know(self, mark: int, table: str, since: float) -> None:
        """Know a session as another process does."""
        if table == "given":
            self.given(mark)
        elif table == "kept":
            if mark not in self._kept and len(self._kept) < KEPT_MAX:
                self._kept[mark] = since
        else:
            self._given.pop(mark, None)
            self._kept.pop(mark, None)
            self.restore(mark)

    def given(self, mark: int) -> None:
        """The application has set it."""
        if mark not in self._issued:
            self._given[mark] = None
            if len(self._given) > GIVEN_MAX:
                self._given.popitem(last=False)

    def answered(self, marks: tuple[int, ...], now: float) -> None:
        """A request with these was answered, and the answer stored for it alone."""
        for mark in marks:
            if mark in self._issued:
                self._issued.move_to_end(mark)
                return
            if mark in self._given:
                del self._given[mark]
                self._kept.pop(mark, None)
                self._issued[mark] = None
                if len(self._issued) > ISSUED_MAX:
                    self._issued.popitem(last=False)
                return
        if marks:
            self._keep(marks[0], now)

    def _keep(self, mark: int, now: float) -> None:
        if mark in self._kept:
            self._kept.move_to_end(mark)
            return
        self._kept[mark] = now
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def standing_of(self, marks: tuple[int, ...], now: float) -> tuple[int, int]:
        """Return ISSUED, KEPT or UNKNOWN, and the mark that it is by (0 if it is by none)."""
        for mark in marks:
            if mark in self._issued or mark in self._given:
                return ISSUED, mark
        if marks:
            since = self._kept.get(marks[0])
            if since is not None and now - since >= KEPT_S:
                return KEPT, marks[0]
        return UNKNOWN, 0
