"""Recent changes, for responses that are still on their way.

Such a response may have been made before the change. The changes are: a POST has changed a page, a
session has ended, or the application has withdrawn a page. `now` is monotonic seconds.
"""

from collections import OrderedDict
from typing import Final

from retter.store.record import NEVER

# Changes that a response on its way is compared with. If more changes happen during one request,
# its response counts as outdated. That is too careful, but the next response is stored again.
CHANGES_REMEMBERED_MAX: Final = 1024


class Changes:
    """The times when keys were superseded or withdrawn, and when owners were dropped."""

    __slots__ = ("_all_at", "_at", "emptied_at", "latest_at")

    def __init__(self) -> None:
        self._at: OrderedDict[int, float] = OrderedDict()  # oldest first
        self._all_at = NEVER  # the newest forgotten change, which may be that of any key
        self.latest_at = NEVER
        self.emptied_at = NEVER  # when everything was dropped

    def remember(self, what: bytes, now: float) -> None:
        """Remember a change of a key, or of an owner."""
        # By hash, since a key may be as long as a head. If two keys have the same hash, a response
        # on its way may count as superseded without need, and nothing worse happens.
        self._at[hash(what)] = now
        self._at.move_to_end(hash(what))
        self.latest_at = now
        if len(self._at) > CHANGES_REMEMBERED_MAX:
            _, self._all_at = self._at.popitem(last=False)

    def remember_mark(self, mark: int, now: float) -> None:
        """Remember that the session of a mark (marks.py) has ended."""
        self.remember(b"m%d" % mark, now)

    def remember_refusal(self, key: bytes, now: float) -> None:
        """Remember that the application has refused the page of a key."""
        self.remember(b"-" + key, now)

    def empty(self, now: float) -> None:
        """Remember that everything was dropped."""
        self.latest_at = self.emptied_at = now

    def since(self, what: bytes, asked_at: float) -> bool:
        """Return whether something may have changed since a request was sent."""
        return asked_at <= self._at.get(hash(what), self._all_at)

    def marks_since(self, marks: tuple[int, ...], asked_at: float) -> bool:
        """Return whether one of these sessions may have ended since."""
        return any(self.since(b"m%d" % mark, asked_at) for mark in marks)

    def refused_since(self, key: bytes, asked_at: float) -> bool:
        """Return whether the application has refused the page since, as far as remembered."""
        return asked_at <= self._at.get(hash(b"-" + key), NEVER)

    def forbid(self, owner: bytes, marks: tuple[int, ...], key: bytes, asked_at: float) -> bool:
        """Return whether the response to a request sent at this time must not be stored.

        This is so if since then everything was dropped, its owner's responses were dropped, or the
        application has refused this page.
        """
        if asked_at > self.latest_at:
            return False
        return (
            asked_at <= self.emptied_at
            or (bool(owner) and (self.since(owner, asked_at) or self.marks_since(marks, asked_at)))
            or self.refused_since(key, asked_at)
        )
