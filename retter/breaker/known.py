"""Sessions that the application has begun: who carries one is known.

That somebody carries a session says nothing, anybody can make one up. So one counts if RETTER has
seen the application set it. One that it has not (RETTER was restarted meanwhile) counts for less,
and only after answers have been stored for it for a while.

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
    """The sessions that are known, by the keyed hashes that stand for them as owners."""

    __slots__ = ("_given", "_issued", "_kept")

    def __init__(self) -> None:
        self._issued: OrderedDict[bytes, None] = OrderedDict()
        self._given: OrderedDict[bytes, None] = OrderedDict()
        self._kept: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._issued) + len(self._given) + len(self._kept)

    def given(self, session: bytes) -> None:
        """The application has set it."""
        if session not in self._issued:
            self._given[session] = None
            if len(self._given) > GIVEN_MAX:
                self._given.popitem(last=False)

    def answered(self, session: bytes, now: float) -> None:
        """It was used, and an answer was stored for it."""
        if session in self._issued:
            self._issued.move_to_end(session)
        elif session in self._given:
            del self._given[session]
            self._kept.pop(session, None)
            self._issued[session] = None
            if len(self._issued) > ISSUED_MAX:
                self._issued.popitem(last=False)
        elif session in self._kept:
            self._kept.move_to_end(session)
        else:
            self._kept[session] = now
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)

    def standing_of(self, session: bytes, now: float) -> int:
        """Return ISSUED, KEPT or UNKNOWN."""
        if session in self._issued or session in self._given:
            return ISSUED
        since = self._kept.get(session)
        return KEPT if since is not None and now - since >= KEPT_S else UNKNOWN
