"""Changes of one worker's near store that are not in the shared database yet.

It is a `WriteBehind` that tells the others the removals of this worker, and ignores entries that
the others have removed (news.py).
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from math import inf
from typing import Final

from retter.disk.news import News
from retter.store.purge_count import PurgeCount
from retter.store.record import SUPERSEDED
from retter.store.store import ResponseStore
from retter.store.write_behind import (
    WAITING_BYTES_MIN,
    Batch,
    Counted,
    Found,
    Purge,
    Removals,
    Shelf,
    Slot,
    WriteBehind,
    Written,
    marked_superseded,
)

# A stranger can send POSTs to five URLs of 16 KB between two looks of another worker. A worker that
# has missed news drops all that it has in memory. So in a tenth of a second (two looks), long keys
# take at most a quarter of a ring; further ones are not passed on.
LONG_KEY_BYTES: Final = 512
LONG_KEYS_EVERY_S: Final = 0.1

# Called directly for each response that is read from the database: `super()` costs 0.1 us.
_fetch: Final = WriteBehind.fetch


class SharedBehind(WriteBehind):
    """The changes of one worker."""

    def __init__(
        self,
        shelf: Shelf,
        news: News,
        *,
        personal: bool = True,
        bytes_max: int = WAITING_BYTES_MIN,
    ) -> None:
        super().__init__(shelf, personal=personal, bytes_max=bytes_max)
        self._news = news
        self._applies = False  # what another worker has removed
        self._position = 0  # of the news that the batch under way has
        self._long_until = 0.0
        self._long_bytes = 0  # of longer keys that were passed on, until then
        self._read_until: dict[int, int] = {}  # positions in the news of others, for that batch
        self.on_kept: Callable[[bytes], None] = lambda key: None  # see give_way
        # Called with what a purge of another worker has dropped here: its place, the number of the
        # purge, and keys, of which some may be there twice.
        self.on_dropped: Callable[[int, int, list[bytes]], None] = lambda place, number, keys: None
        # Returns what is near this worker, for a list of all pages.
        self.near: Callable[[], Mapping[bytes, Slot]] = dict
        self._held: set[bytes] | None = None  # keys with entries that wait for release(), if any

    # -- what this worker removes

    def withdrawn(self, key: bytes, now: float) -> None:
        """Note at once that the application has withdrawn the page of a key."""
        self._tell(Removals(keys={key}))
        super().withdrawn(key, now)

    def supersede(self, key: bytes, now: float) -> None:
        """Note that an unsafe method has invalidated the entries of a key.

        Also of one that is not in the database: another worker may be about to commit it. If many
        longer keys are invalidated, the others may show an older version of these.
        """
        removals = Removals(superseded={key})
        if len(key) <= LONG_KEY_BYTES or self._applies or self._has_room(key, now):
            self._tell(removals)
        waits = self._slots.get(key)
        if waits is not None:
            self._slots[key] = waits._replace(slot=marked_superseded(waits.slot))
        self._take_back(removals, now)

    def _has_room(self, key: bytes, now: float) -> bool:
        if now >= self._long_until:
            self._long_until, self._long_bytes = now + LONG_KEYS_EVERY_S, 0
        self._long_bytes += 2 * len(key)  # as packed_removals() writes it
        return self._long_bytes <= self._news.message_bytes_max

    def drop_owners(self, owners: Iterable[bytes], marks: Iterable[int], now: float) -> None:
        """Remove all entries of these owners, because a session has begun or ended."""
        owners, marks = set(owners), set(marks)
        if owners or marks:
            self._tell_or_ask(Removals(owners=owners, marks=marks))
        super().drop_owners(owners, marks, now)

    def drop_personal(self, now: float) -> None:
        """Remove the entries of all owners."""
        self._tell(Removals(personal=True))
        super().drop_personal(now)

    def purge(self, purge: Purge, now: float) -> None:
        """Remove the entries that match the purge of an operator."""
        everything = purge == Purge(None, None, None)
        self._tell_or_ask(Removals(everything=True) if everything else Removals(purges=[purge]))
        super().purge(purge, now)

    def _tell(self, removals: Removals) -> None:
        if not self._applies:
            self._news.publish(removals)

    def _tell_or_ask(self, removals: Removals) -> None:
        if self._counting is None or self._applies:
            self._tell(removals)
            return
        pages = self._counting.pages
        pages.number = self._news.ask(removals)
        if pages.number < 0:  # the others may drop more than that
            pages.complete = False

    # -- what another one removes

    @contextmanager
    def applying(self) -> Generator[None, None, None]:
        """Within this block, removals are those of another worker, which commits them itself."""
        self._applies = True
        try:
            yield
        finally:
            self._applies = False

    def changed(
        self, key: bytes, slot: Slot, marks: tuple[int, ...], now: float, whole: bool = False
    ) -> None:
        """Note the present slot of a key, unless another worker has changed it."""
        if not self._applies:
            super().changed(key, slot, marks, now, whole)
            if self._held is not None and slot:
                self._held.add(key)

    @contextmanager
    def answering(self, keys: list[bytes]) -> Generator[None, None, None]:
        """Within this block, `applying`; keys of changes that are dropped are added to `keys`."""
        self._counting = Counted(PurgeCount(keys), Removals())
        try:
            with self.applying():
                yield
        finally:
            self._counting = None

    def _take_back(self, removals: Removals, now: float) -> None:
        if not self._applies:
            super()._take_back(removals, now)
            return
        for key in list(removals.keys or removals.superseded or self._slots):
            waits = self._slots.get(key)
            if waits is None:
                continue
            # Also what is only superseded is not written: the other worker may have a newer one.
            if key in removals.superseded or removals.take(key, waits.marks):
                self.forget(key)

    def _passed(self, key: bytes, found: Found) -> Found | None:
        passed = super()._passed(key, found)
        pending = self._news.pending
        if passed is None or not self._news.is_pending:
            return passed
        if pending.take(key, passed.marks):
            return None
        if key in pending.superseded:
            return passed._replace(slot=marked_superseded(passed.slot), often=True)
        return passed

    def fetch(self, key: bytes, now: float) -> Found | None:
        """Return the slot of a key that the near store does not have, if that takes no wait."""
        found = _fetch(self, key, now)
        if found is None or not self._news.is_pending or key in self._slots:
            return found
        return self._passed(key, found)

    # -- while workers have different rules

    def hold(self) -> None:
        """Write what waits and what is removed, but nothing newer, until `release` or `close`."""
        if self._held is None:
            self._held = set()

    @property
    def holds(self) -> bool:
        """Whether newer entries wait for `release`."""
        return self._held is not None

    def release(self) -> None:
        """Write what was held, too: it was stored by rules that hold still."""
        if self._held is not None:
            self._held = None
            self._since = -inf  # others have waited for it long enough

    def close(self) -> None:
        """Drop what was held, and accept only removals from now on: other rules hold."""
        super().close()
        held, self._held = self._kept_back(), None
        for key in held:
            self.forget(key)

    def _kept_back(self) -> dict[bytes, Written]:
        """Return the changes that wait for `release`. A removed key does not wait."""
        slots = self._slots
        return {key: slots[key] for key in self._held or () if key in slots and slots[key].slot}

    def is_due(self, now: float) -> bool:
        """Return whether a batch must be written now; see `WriteBehind.is_due`."""
        if self._held is None:
            return super().is_due(now)
        if self._under_way is not None or now < self._not_before or self.gathers:
            return False
        return self._removing or bool(self._counts) or len(self._slots) > len(self._kept_back())

    # -- batches

    def take(self, now: float) -> Batch | None:
        """Return all waiting changes as a batch; see `WriteBehind.take`."""
        self._news.look(now)
        batch = super().take(now) if self._held is None else self._take_around(now)
        if batch is not None:
            self._position, self._read_until = self._news.position, self._news.positions()
        return batch

    def _take_around(self, now: float) -> Batch | None:
        """Return a batch without what is held."""
        if self._under_way is not None:
            return None
        held = self._kept_back()
        for key in held:
            self.forget(key)
        batch = super().take(now)
        self._slots.update(held)
        self.bytes_waiting += sum([waits.size for waits in held.values()])
        return batch

    def done(self) -> bool:
        """Note that the batch is on disk; return whether all removals are on disk now."""
        self._news.committed(self._position)
        return super().done()

    def tick(self, now: float) -> None:
        """Look for news; if nothing is left to commit, tell the others so."""
        self._news.tick(now)
        if self.is_all_removed:
            self._news.committed(self._news.position)

    def give_way(self, key: bytes) -> None:
        """Forget what is near under a key: what another worker has stored there stays."""
        if key not in self._slots:  # else it has changed since
            self.on_kept(key)

    def still_valid(self, batch: Batch) -> Batch:
        """Return a batch without what others have removed since it was taken.

        The writing thread calls this when it alone may write to the database. What is removed after
        that is committed after this batch, because the other worker waits for the same lock.
        """
        later = self._news.since(self._read_until)
        if not later:
            return batch
        slots: dict[bytes, Written] = {}
        for key, waits in batch.slots.items():
            if later.take(key, waits.marks):
                slots[key] = Written((), ())
            elif key in later.superseded:
                slots[key] = waits._replace(slot=marked_superseded(waits.slot))
            else:
                slots[key] = waits
        return batch._replace(slots=slots)


class NoShelf:
    """A disk that is not used."""

    def read(self, key: bytes, now: float) -> Found | None:
        """Return nothing."""
        return None

    def knows(self, key: bytes) -> bool:
        """Return whether something is stored under a key: nothing is."""
        return False

    def note(self, removals: Removals) -> None:
        """Do nothing: what is only in memory ends with the process."""


def follow(store: ResponseStore, news: News, behind: SharedBehind) -> None:
    """Apply the removals of the others to the store near a worker."""

    def apply(removals: Removals, now: float) -> None:
        with behind.applying():
            store.forget_borrowed()
            store.invalidation.take_back(removals, now)

    def answer(place: int, number: int, removals: Removals, now: float) -> None:
        """Apply the purge of another worker, which counts what it drops."""
        keys: list[bytes] = []
        with behind.answering(keys):
            store.forget_borrowed()
            store.invalidation.dropped = keys
            try:
                store.invalidation.take_back(removals, now)
            finally:
                store.invalidation.dropped = None
        behind.on_dropped(place, number, keys)

    def read_again(removals: Removals) -> None:
        """The database knows of the change, and may have a newer response by now."""
        slots = store.shelves.slots
        with behind.applying():
            for key in removals.superseded:
                if all(one[SUPERSEDED] for one in slots.get(key, ())):
                    store.shelves.remove_key(key)

    def forget(key: bytes) -> None:
        with behind.applying():
            store.forget_borrowed()
            store.shelves.remove_key(key)

    news.on_removals, news.on_asked, news.on_committed = apply, answer, read_again
    behind.on_kept = forget
    behind.near = lambda: store.shelves.slots
