"""Stored responses that the application has withdrawn. They are hidden first and can be restored.

proxy/withdrawals.py decides when this is done. `now` is monotonic seconds.
"""

from typing import NamedTuple

from retter.http.variants import key_of_other_browsers
from retter.store.accounting import Shelves
from retter.store.changes import Changes
from retter.store.record import (
    AGE_MAX,
    ASKED,
    GENERATION,
    GIVEN_TO,
    NEVER,
    OTHERS_AT,
    STORED_AT,
    VARIANT_KEY,
    WITHDRAWN,
    Record,
)
from retter.store.rules import StoreStats


class Withdrawn(NamedTuple):
    """The withdrawn entries of a key, which can be restored."""

    at: float
    key: bytes
    slot: tuple[Record, ...]  # the slot before the withdrawal
    hidden: tuple[Record, ...]  # the slot that has replaced it


class TakenBack:
    """Hides the entries of a key, and restores or removes them later."""

    __slots__ = ("_changes", "_counts", "_shelves")

    def __init__(self, shelves: Shelves, changes: Changes, counts: StoreStats) -> None:
        self._shelves = shelves
        self._changes = changes
        self._counts = counts

    def holds(
        self, key: bytes, generation: int = 0, variant_key: bytes | None = None, asked: int = 0
    ) -> bool:
        """Return whether a key has an entry, up to a generation, that is not withdrawn.

        Args:
            variant_key: If given, only entries count that a request with this variant key may get.
            asked: `Identity.asked` of a refused request. If it is not 0, only entries count whose
                request had the same value.
        """
        return any(
            one[AGE_MAX] != WITHDRAWN
            and one[GENERATION] <= generation
            and (variant_key is None or _is_for(one, variant_key))
            and (not asked or one[ASKED] == asked)
            for one in self._shelves.slots.get(key, ())
        )

    def last_good(self, key: bytes, variant_key: bytes, client: int) -> tuple[float, float]:
        """Return when the application last gave a good response with this variant key.

        Returns:
            The last time when any client got one, and the last time when a client other than this
            one got one; NEVER if none is stored.
        """
        anybodys = others = NEVER
        for one in self._shelves.slots.get(key, ()):
            if _is_for(one, variant_key) and one[AGE_MAX] != WITHDRAWN:
                anybodys = max(anybodys, one[STORED_AT])
                others = max(others, others_at((one,), client))
        return anybodys, others

    def given_to_others(self, withdrawn: Withdrawn, client: int) -> bool:
        """Return whether another client than this one got the page after the withdrawal."""
        return any(
            one[AGE_MAX] != WITHDRAWN and others_at((one,), client) > withdrawn.at
            for one in self._shelves.slots.get(withdrawn.key, ())
        )

    def refuse_late(self, key: bytes, now: float) -> None:
        """Forbid storing under a key the responses to requests that were sent before now."""
        self._changes.remember_refusal(key, now)

    def withdraw(
        self, key: bytes, now: float, generation: int = 0, asked: int = 0
    ) -> Withdrawn | None:
        """Hide the entries of a key, with all variants; return None if none can be restored.

        No look-up finds hidden entries, but their bytes still count. A response that is still on
        its way will not be stored: it may have been made before the withdrawal. Entries that are on
        a slow disk alone are removed.

        Args:
            generation: The generation of the refused request. Newer entries stay.
            asked: `Identity.asked` of the refused request. If it is not 0, entries for requests
                with another value stay.
        """
        shelves = self._shelves
        behind = shelves.behind
        if key not in shelves.slots and behind is not None and behind.may_have(key):
            on_disk = behind.fetch(key, now)  # it was read from there, and not copied
            if on_disk is None or not shelves.promote(key, on_disk):
                # To read it may take long, and nobody has done so lately. So it is removed at once.
                behind.withdrawn(key, now)
                self.refuse_late(key, now)
                self._counts.withdrawn += 1
                return None
        if not self.holds(key, generation, asked=asked):
            return None
        slot = shelves.slots[key]
        gone = [
            one
            for one in slot
            if one[AGE_MAX] != WITHDRAWN  # else an earlier withdrawal has hidden it
            and one[GENERATION] <= generation
            and (not asked or one[ASKED] == asked)
        ]
        hidden = tuple(
            [
                (*one[:AGE_MAX], WITHDRAWN, *one[AGE_MAX + 1 :]) if one in gone else one
                for one in slot
            ]
        )
        self._shelves.slots[key] = hidden
        if self._shelves.behind is not None:
            self._shelves.behind.withdrawn(key, now)
            self._shelves.tell(key, now)
        self.refuse_late(key, now)
        self._counts.withdrawn += len(gone)
        return Withdrawn(now, key, slot, hidden)

    def restore(self, withdrawn: Withdrawn) -> None:
        """Restore the hidden entries that still exist."""
        slot = self._shelves.slots.get(withdrawn.key)
        if slot is None:
            return
        shown = _hidden_by(withdrawn)
        self._shelves.slots[withdrawn.key] = tuple([shown.get(id(one), one) for one in slot])
        self._counts.restored += sum([id(one) in shown for one in slot])
        self._shelves.tell(withdrawn.key, withdrawn.at)

    def discard(self, withdrawn: Withdrawn) -> None:
        """Remove the hidden entries that still exist."""
        hidden = _hidden_by(withdrawn)
        for record in self._shelves.slots.get(withdrawn.key, ()):
            if id(record) in hidden:
                self._shelves.remove(withdrawn.key, record)
                self._shelves.tell(withdrawn.key, withdrawn.at)


def others_at(slot: tuple[Record, ...], client: int) -> float:
    """Return the last time when another client than this one got one of these responses."""
    latest = NEVER
    for one in slot:
        at: float = one[OTHERS_AT] if one[GIVEN_TO] == client else one[STORED_AT]
        latest = max(latest, at)
    return latest


def _is_for(record: Record, variant_key: bytes) -> bool:
    """Return whether an entry has this variant key, or is the page of other browsers."""
    key: bytes = record[VARIANT_KEY]
    return key == variant_key or key == key_of_other_browsers(variant_key)


def _hidden_by(withdrawn: Withdrawn) -> dict[int, Record]:
    """Return the original records of a withdrawal, by the id() of the records that replace them."""
    return {
        id(one): old
        for one, old in zip(withdrawn.hidden, withdrawn.slot, strict=True)
        if one is not old
    }
