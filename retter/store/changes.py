"""Recent changes, for responses that are still on their way.

They may have been made before the change: a page that a POST has altered, a session that has
ended, a page that the application has taken back. `now` is monotonic seconds.
"""

from collections import OrderedDict
from typing import Final

from retter.store.record import NEVER

# Changes that a response still on its way is compared with. When more of them happen during one
# request, it is taken for old: too careful, but it costs only what the next response brings back.
CHANGES_REMEMBERED_MAX: Final = 1024


class Changes:
    """When keys were superseded or taken back, and owners dropped."""

    __slots__ = ("_all_at", "_at", "emptied_at", "latest_at")

    def __init__(self) -> None:
        self._at: OrderedDict[int, float] = OrderedDict()  # oldest first
        self._all_at = NEVER  # the newest that is forgotten: it may have been any key's
        self.latest_at = NEVER
        self.emptied_at = NEVER  # all that was stored was dropped

    def remember(self, what: bytes, now: float) -> None:
        """Remember a change of a key, or of an owner."""
        # By hash, since a key may be as long as a head. Two that share one only make a response
        # on its way count as superseded that need not.
        self._at[hash(what)] = now
        self._at.move_to_end(hash(what))
        self.latest_at = now
        if len(self._at) > CHANGES_REMEMBERED_MAX:
            _, self._all_at = self._at.popitem(last=False)

    def remember_mark(self, mark: int, now: float) -> None:
        """Remember that the session of a mark (marks.py) has ended."""
        self.remember(b"m%d" % mark, now)

    def remember_refusal(self, key: bytes, now: float) -> None:
        """Remember that the application has refused what is stored under a key."""
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
        """Return whether the application has refused it since, as far as that is remembered."""
        return asked_at <= self._at.get(hash(b"-" + key), NEVER)

    def forbid(self, owner: bytes, marks: tuple[int, ...], key: bytes, asked_at: float) -> bool:
        """Return whether a response asked for at that time is not to be stored.

        Everything was dropped since, its owner's responses were, or the application has refused
        this one.
        """
        if asked_at > self.latest_at:
            return False
        return (
            asked_at <= self.emptied_at
            or (bool(owner) and (self.since(owner, asked_at) or self.marks_since(marks, asked_at)))
            or self.refused_since(key, asked_at)
        )
