"""Behind the store: reports each change to listeners, so that another process can follow it.

It stands where a disk may stand (write_behind.py), and passes everything on to the disk if there
is one.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from retter.store.write_behind import Found, Purge, Removals, Shelf, Slot, WriteBehind


class Listener(Protocol):
    """Receives each change of the store."""

    def changed(self, key: bytes) -> None:
        """The entries under a key have changed or were removed."""
        ...

    def removed(self, removals: Removals) -> None:
        """Stored responses were removed."""
        ...


class _Nothing:
    """A disk without any entries."""

    def read(self, key: bytes, now: float) -> Found | None:
        return None

    def knows(self, key: bytes) -> bool:
        return False

    def note(self, removals: Removals) -> None:
        pass


_NOTHING: Final[Shelf] = _Nothing()


class Follower(WriteBehind):
    """Reports changes to its listeners.

    Attributes:
        inner: The object of the disk, which gets the changes as well.
        listeners: The objects that get each change.
    """

    def __init__(self, inner: WriteBehind | None) -> None:
        super().__init__(_NOTHING, personal=inner is None or inner.personal)
        self.inner = inner
        self.listeners: list[Listener] = []

    def changed(
        self, key: bytes, slot: Slot, marks: tuple[int, ...], now: float, whole: bool = False
    ) -> None:
        """Note the entries that a key has now."""
        if self.inner is not None:
            self.inner.changed(key, slot, marks, now, whole)
        for listener in self.listeners:
            listener.changed(key)

    def withdrawn(self, key: bytes, now: float) -> None:
        """The application has withdrawn a page."""
        if self.inner is not None:
            self.inner.withdrawn(key, now)
        self._tell(Removals(keys={key}))

    def supersede(self, key: bytes, now: float) -> None:
        """An unsafe method has changed what is stored under a key."""
        if self.inner is not None:
            self.inner.supersede(key, now)
        self._tell(Removals(superseded={key}))

    def drop_owners(self, owners: Iterable[bytes], marks: Iterable[int], now: float) -> None:
        """A session has begun or ended."""
        owners, marks = set(owners), set(marks)
        if self.inner is not None:
            self.inner.drop_owners(owners, marks, now)
        if owners or marks:
            self._tell(Removals(owners=owners, marks=marks))

    def drop_personal(self, now: float) -> None:
        """More sessions have ended than can be named."""
        if self.inner is not None:
            self.inner.drop_personal(now)
        self._tell(Removals(personal=True))

    def purge(self, purge: Purge, now: float) -> None:
        """An operator drops the matching entries."""
        if self.inner is not None:
            self.inner.purge(purge, now)
        everything = purge == Purge(None, None, None)
        self._tell(Removals(everything=True) if everything else Removals(purges=[purge]))

    def _tell(self, removals: Removals) -> None:
        for listener in self.listeners:
            listener.removed(removals)

    def forget_bodies(self) -> None:
        """Memory has run out."""
        if self.inner is not None:
            self.inner.forget_bodies()

    def may_have(self, key: bytes) -> bool:
        """Return whether something is, or will be, on disk under a key."""
        return self.inner is not None and self.inner.may_have(key)

    def fetch(self, key: bytes, now: float) -> Found | None:
        """Return the entries of a key on disk, if they can be had without waiting."""
        return None if self.inner is None else self.inner.fetch(key, now)
