"""The responses that a box has to write to the server, and the time of each write.

A key is written once a minute at most, and only if what is stored under it has changed. `now` is
monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from retter.store.packing import may_be_kept
from retter.store.record import BODY, SUPERSEDED
from retter.store.write_behind import Removals, Slot

# A key is written once in this time at most.
WRITE_AGAIN_S: Final = 60.0
# And once in this time if its bodies are the same: mostly, only the Date has changed.
WRITE_EQUAL_S: Final = 600.0
# Keys of one round: to pack and compress 64 pages of 17 KB takes a thread 10 ms.
WRITE_KEYS_MAX: Final = 64
# Octets of one round. Larger rounds would delay changes.
WRITE_BYTES_MAX: Final = 2 * 1024 * 1024
# Keys that wait, 100 to 200 octets each. Further ones are not written.
WAITING_MAX: Final = 8192
# Keys whose last write is remembered, 100 octets each.
WRITTEN_MAX: Final = 16_384

Due = list[tuple[bytes, Slot, tuple[int, ...]]]


def _bodies_of(slot: Slot) -> int:
    # Python keeps the hash of octets, so this is nearly free the second time.
    return hash(tuple([one[BODY] for one in slot]))


class Writes:
    """The keys that are to be written.

    Args:
        personal: Also write responses of owners.

    Attributes:
        slot_of: Returns what is in memory under a key, and the marks of its owner.
        dropped: Changes that were not written, because there were too many.
    """

    def __init__(self, *, personal: bool) -> None:
        self.slot_of: Callable[[bytes], tuple[Slot, tuple[int, ...]]] = lambda _: ((), ())
        self.dropped = 0
        self._personal = personal
        # Whether there was anything to be kept when the key changed.
        self._waiting: dict[bytes, bool] = {}
        self._later: dict[bytes, float] = {}  # written lately: until when they wait
        self._later_order: list[tuple[float, bytes]] = []  # the same as a heap
        # By the hash of the key: when, and the hash of the bodies.
        self._written: OrderedDict[int, tuple[float, int]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._later)

    def changed(self, key: bytes, *, elsewhere: bool = False) -> None:
        """The responses stored under a key have changed or been removed.

        Args:
            elsewhere: Another process has changed them, and this one follows it.
        """
        if not self._personal and key.startswith(b"@"):
            return
        slot, _ = self.slot_of(key)
        if elsewhere and not slot:
            return  # the process that removed it may have stored it again by now
        if slot and all(one[SUPERSEDED] for one in slot):
            return  # the change says so; the next version must not wait for the end of a minute
        is_kept = any(may_be_kept(one) for one in slot)
        if key in self._waiting:
            self._waiting[key] = is_kept
            return
        written = self._written.get(hash(key))
        if is_kept and written is not None:
            self._write_later(key, slot, *written)
        elif len(self._waiting) < WAITING_MAX:
            self._later.pop(key, None)
            self._waiting[key] = is_kept
        else:
            self.dropped += 1

    def _write_later(self, key: bytes, slot: Slot, written_at: float, bodies: int) -> None:
        """Let a key wait that was written lately; keys not written lately go before it."""
        is_equal = bodies == _bodies_of(slot)
        due_at = written_at + (WRITE_EQUAL_S if is_equal else WRITE_AGAIN_S)
        if due_at >= self._later.get(key, inf):
            return
        if len(self._later) < WAITING_MAX or key in self._later:
            self._later[key] = due_at
            heappush(self._later_order, (due_at, key))
            if len(self._later_order) > 2 * WAITING_MAX:  # most of them wait no longer
                self._later_order = [(at, one) for one, at in self._later.items()]
                heapify(self._later_order)
        else:
            self.dropped += not is_equal

    def removed(self, removals: Removals) -> None:
        """Stored responses were removed: the next ones under these keys are written soon."""
        for key in (*removals.keys, *removals.superseded):
            self._written.pop(hash(key), None)
            if self._later.pop(key, None) is not None:
                self._waiting[key] = True

    def take_due(self, now: float, untold: list[Removals]) -> Due:
        """Take the next keys that are to be written.

        Args:
            untold: Removals that the other boxes must be told first. Their keys wait.
        """
        while self._later_order and self._later_order[0][0] <= now:
            at, key = heappop(self._later_order)
            if self._later.get(key) == at:  # else it waits no longer
                del self._later[key]
                self._waiting[key] = True
        due: Due = []
        size = 0
        kept: dict[bytes, bool] = {}
        while self._waiting and len(due) < WRITE_KEYS_MAX and size < WRITE_BYTES_MAX:
            key = next(iter(self._waiting))
            was_kept = self._waiting.pop(key)
            slot, marks = self.slot_of(key)
            if any(one.take(key, marks) or key in one.superseded for one in untold):
                kept[key] = was_kept
                continue
            if not slot and was_kept:
                self.dropped += 1  # evicted meanwhile
                continue
            due.append((key, slot, marks))
            size += sum([len(one[BODY]) for one in slot])
            self._written[hash(key)] = now, _bodies_of(slot)
            self._written.move_to_end(hash(key))
            if len(self._written) > WRITTEN_MAX:
                self._written.popitem(last=False)
        self._waiting = {**kept, **self._waiting} if kept else self._waiting
        return due

    def failed(self, due: Due) -> None:
        """Put taken keys back, to write them once more: the server does not have them."""
        for key, slot, _ in due:
            self._written.pop(hash(key), None)
            self._waiting.setdefault(key, bool(slot))
