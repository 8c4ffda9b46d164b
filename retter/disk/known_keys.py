"""The keys that are on disk, and which of them were read lately.

A key is a slot key (packing.py). `now` is monotonic seconds.
"""

from collections.abc import Iterable
from typing import Final

from retter.disk.change import table_key
from retter.disk.database import Done
from retter.disk.hot_key import HotKey
from retter.store.key_table import KeyTable

# A page that was read within this time is still in memory, unless the machine is far too small.
RECENT_S: Final = 600.0

MINUTE_S: Final = 60.0

# Keys that are remembered because they were read in this minute (hot_key.py). This takes 4 MB with
# usual heads, and 6 MB at most.
HOT_KEYS_MAX: Final = 2048

# Where a key is: not on disk, on disk with its pages in memory, or perhaps on a disk that is slow.
ABSENT, FAST, SLOW = range(3)


class KnownKeys:
    """The keys on disk. Until all of them are listed, every key may be there.

    Attributes:
        hot: By key of the store: those that were read in this minute.
        is_complete: Whether all keys are listed.
    """

    __slots__ = ("_began", "_hot_minute", "_removed_meanwhile", "_table", "hot", "is_complete")

    def __init__(self, now: float) -> None:
        self._began = now
        self._table = KeyTable()
        self._removed_meanwhile: set[int] = set()  # while the table is being made
        self._hot_minute = 0
        self.hot: dict[bytes, HotKey] = {}
        self.is_complete = False

    def __len__(self) -> int:
        return len(self._table)

    @property
    def bytes_used(self) -> int:
        """The octets that the table takes."""
        return self._table.bytes_used

    def where(self, slot_key: bytes, now: float) -> int:
        """Return whether a key is on disk, and how long a read of it may take."""
        note = self._table.get(table_key(slot_key))
        if note < 0:
            return ABSENT if self.is_complete else SLOW
        return FAST if self._is_recent(note, now) else SLOW

    def _minute(self, now: float) -> int:
        return int((now - self._began) // MINUTE_S) + 1  # 0 means never

    def _is_recent(self, note: int, now: float) -> bool:
        return note > 0 and note * MINUTE_S + RECENT_S >= now - self._began

    # -- reads

    def used(self, slot_key: bytes, now: float) -> None:
        """Note that a key was read."""
        number = table_key(slot_key)
        if self._table.get(number) >= 0:
            self._table.set(number, self._minute(now))

    def heat(self, key: bytes, slot_key: bytes) -> HotKey:
        """Remember a key that was read, until the minute ends."""
        if len(self.hot) >= HOT_KEYS_MAX:
            self.hot.clear()
        hot = self.hot[key] = HotKey(slot_key)
        return hot

    def tick(self, now: float) -> None:
        """Forget the hot keys of the last minute."""
        minute = self._minute(now)
        if minute != self._hot_minute:
            self._hot_minute = minute
            self.hot.clear()

    # -- changes

    def listed(self, table: KeyTable) -> None:
        """Take over the list of all keys, which was made while the disk may have changed."""
        if self.is_complete:
            return  # all entries have been removed meanwhile
        # The changes during this second are few, compared with the entries in the list.
        for number in self._removed_meanwhile:
            table.discard(number)
        for number, note in self._table.items():
            table.set(number, note)
        self._table = table
        self._removed_meanwhile.clear()
        self.is_complete = True

    def committed(self, done: Done, written: Iterable[bytes], now: float) -> None:
        """Take over the changes of a commit.

        Args:
            written: The slot keys that are on disk now.
        """
        if done.everything:
            self._table.clear()
            self.hot.clear()
            self._removed_meanwhile.clear()
            self.is_complete = True
        minute = self._minute(now)
        for slot_key in written:
            self._table.set(table_key(slot_key), minute)
        self.removed(done.removed)

    def removed(self, numbers: Iterable[int]) -> None:
        """Forget keys, which are given as the numbers of the table."""
        for number in numbers:
            self._table.discard(number)
            if not self.is_complete:
                self._removed_meanwhile.add(number)
