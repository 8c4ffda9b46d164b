"""The invalidation of stored responses: after a change, the end of a session, or a purge.

An unsafe method that succeeds invalidates stored responses (RFC 9111 section 4.4). They are marked
and not removed, since an old page is better than an error. In all other cases here, responses are
removed at once, and a response that is still on its way is not stored (changes.py). Responses that
the application itself has withdrawn are in taken_back.py. `now` is monotonic seconds.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from retter.store.accounting import SETTLED_AT_ONCE_MAX, Shelves
from retter.store.changes import Changes
from retter.store.policy import Identity, key_of
from retter.store.purging import matching
from retter.store.record import WITHDRAWN, as_stored
from retter.store.rules import StoreStats

if TYPE_CHECKING:
    from retter.store.write_behind import Removals  # for a disk, or a successor


class Invalidation:
    """Marks and drops stored responses, in memory and on the disk.

    Attributes:
        dropped: If it is a list, keys that are dropped in memory are added to it.
    """

    __slots__ = ("_changes", "_counts", "_shelves", "dropped")

    def __init__(self, shelves: Shelves, changes: Changes, counts: StoreStats) -> None:
        self._shelves = shelves
        self._changes = changes
        self._counts = counts
        self.dropped: list[bytes] | None = None

    def supersede(self, identity: Identity, urls: Iterable[bytes], now: float) -> int:
        """Mark the responses to these URLs for this owner and for everyone; return their number.

        `urls` come from `policy.invalidated_urls`. A response that is still on its way is marked
        too: it may have been made before the change. A withdrawn response is removed for good: if
        the application has withdrawn a page and then changed it, it is never restored.
        """
        marked = 0
        for url in urls:
            for key in {key_of(owner, url) for owner in (*identity.owners, b"")}:
                marked += self._supersede(key, now)
        return marked

    def _supersede(self, key: bytes, now: float) -> int:
        """Mark the responses under a key; return their number."""
        shelves = self._shelves
        self._changes.remember(key, now)
        if shelves.behind is not None:
            shelves.behind.supersede(key, now)
        marked = 0
        for stored in map(as_stored, shelves.slots.get(key, ())):
            if stored.age_max_s == WITHDRAWN:
                shelves.remove(key, tuple(stored))
            elif stored.superseded:
                continue
            else:
                shelves.replace(key, stored, stored._replace(superseded=True))
                marked += 1
            shelves.tell(key, now)
        self._counts.superseded += marked
        return marked

    def drop_owner(self, owner: bytes, now: float, marks: tuple[int, ...] = ()) -> int:
        """Drop all responses of one owner (login, logout). "Everyone" is not an owner here.

        Responses that are still on their way to this owner will not be stored either.

        Args:
            marks: Marks of sessions. All other owners that have one of them are dropped too.
        """
        shelves = self._shelves
        owners = shelves.marks.owners(marks)
        if owner:
            owners.append(owner)
            self._changes.remember(owner, now)
        for mark in marks:
            self._changes.remember_mark(mark, now)
        if shelves.behind is not None:
            shelves.behind.drop_owners(owners, marks, now)
        dropped = 0
        for one in owners:
            keys = shelves.keys_of(one)
            if self.dropped is not None:
                self.dropped += keys
            dropped += sum([shelves.remove_key(key) for key in keys])
        self._counts.dropped_session += dropped
        return dropped

    def _drop_personal(self, now: float) -> None:
        """Drop the responses of all owners, also on a disk, and refuse responses on their way."""
        shelves = self._shelves
        self._changes.empty(now)
        if shelves.behind is not None:
            shelves.behind.drop_personal(now)
        keys = [key for owner in shelves.owner_keys for key in shelves.keys_of(owner)]
        self._counts.dropped_session += sum([shelves.remove_key(key) for key in keys])

    def empty(self, now: float) -> int:
        """Drop everything, and refuse responses on their way; return the number of entries."""
        self._changes.empty(now)
        return self.purge(now=now)

    def purge(
        self,
        *,
        url: bytes | None = None,
        prefix: bytes | None = None,
        owner: bytes | None = None,
        now: float = 0.0,
    ) -> int:
        """Drop the entries that match all given arguments; return their number.

        Without arguments, everything is dropped. `url` and `prefix` are host and target as in
        `Identity.url`, or a target alone, which matches on every host. `owner` b"" is everyone.
        This method checks every key, so it is meant for commands of an operator.
        """
        keys = matching(self._shelves.slots, url, prefix, owner)
        if self._shelves.behind is not None:
            from retter.store.write_behind import Purge

            self._shelves.behind.purge(Purge(url, prefix, owner), now)
        return self.drop_keys(keys)

    def drop_keys(self, keys: list[bytes]) -> int:
        """Drop keys, but not on the disk; return the number of their entries."""
        shelves = self._shelves
        if self.dropped is not None:
            self.dropped += keys
        if len(keys) == len(shelves.slots):
            purged = shelves.clear()
        elif len(keys) > SETTLED_AT_ONCE_MAX:
            purged = shelves.hide(keys)
        else:
            purged = sum([shelves.remove_key(key) for key in keys])
        self._counts.purged += purged
        return purged

    def take_back(self, removals: "Removals", now: float) -> None:
        """Remove the responses that another process has removed, also those on their way.

        This process takes over from that process (handover.py).
        """
        shelves = self._shelves
        if removals.everything:
            self.empty(now)
        if removals.personal:
            self._drop_personal(now)
        for owner in removals.owners:
            self.drop_owner(owner, now)
        if removals.marks:
            self.drop_owner(b"", now, tuple(removals.marks))
        for purge in removals.purges:
            self.purge(url=purge.url, prefix=purge.prefix, owner=purge.owner, now=now)
        for key in removals.keys:
            shelves.remove_key(key)
            self._changes.remember_refusal(key, now)
            if shelves.behind is not None:
                shelves.behind.withdrawn(key, now)
        for key in removals.superseded:
            self._supersede(key, now)
