"""Stored responses that the application has taken back: hidden first, so that they can be restored.

When that is done is decided in proxy/withdrawals.py. `now` is monotonic seconds.
"""

from typing import NamedTuple

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
    slot: tuple[Record, ...]  # as it was
    hidden: tuple[Record, ...]  # what stands there in its place


class TakenBack:
    """Hides what is stored under a key, and gives it back or removes it."""

    __slots__ = ("_changes", "_counts", "_shelves")

    def __init__(self, shelves: Shelves, changes: Changes, counts: StoreStats) -> None:
        self._shelves = shelves
        self._changes = changes
        self._counts = counts

    def holds(
        self, key: bytes, generation: int = 0, variant_key: bytes | None = None, asked: int = 0
    ) -> bool:
        """Return whether something is stored under a key, up to a generation, and not withdrawn.

        Args:
            variant_key: If given, only what could answer a request with this variant key.
            asked: `Identity.asked` of a refused request: something that was asked for like that.
        """
        return any(
            one[AGE_MAX] != WITHDRAWN
            and one[GENERATION] <= generation
            and (variant_key is None or one[VARIANT_KEY] == variant_key)
            and (not asked or one[ASKED] == asked)
            for one in self._shelves.slots.get(key, ())
        )

    def last_good(self, key: bytes, variant_key: bytes, client: int) -> tuple[float, float]:
        """Return when the application last gave a good response with this variant key.

        That is when anybody got one, and when a client other than this one did; NEVER if none is
        stored.
        """
        anybodys = others = NEVER
        for one in self._shelves.slots.get(key, ()):
            if one[VARIANT_KEY] == variant_key and one[AGE_MAX] != WITHDRAWN:
                anybodys = max(anybodys, one[STORED_AT])
                others = max(others, others_at((one,), client))
        return anybodys, others

    def given_to_others(self, withdrawn: Withdrawn, client: int) -> bool:
        """Return whether the application has given a client other than this one the page since."""
        return any(
            one[AGE_MAX] != WITHDRAWN and others_at((one,), client) > withdrawn.at
            for one in self._shelves.slots.get(withdrawn.key, ())
        )

    def refuse_late(self, key: bytes, now: float) -> None:
        """Store no response under a key that was asked for until now, and is still on its way."""
        self._changes.remember_refusal(key, now)

    def withdraw(
        self, key: bytes, now: float, generation: int = 0, asked: int = 0
    ) -> Withdrawn | None:
        """Hide what is stored under a key, with all its variants; None if there is nothing.

        It is found by nobody, and still counts. A response that is still on its way will not be
        stored: it may have been made before.

        Args:
            generation: Of whoever has been refused: what is newer stays.
            asked: `Identity.asked` of the refused request: what was asked for otherwise stays.
        """
        if not self.holds(key, generation, asked=asked):
            return None
        slot = self._shelves.slots[key]
        gone = [
            one
            for one in slot
            if one[AGE_MAX] != WITHDRAWN  # else it belongs to the withdrawal that has hidden it
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
        """Give back what was hidden, as far as it is still there."""
        slot = self._shelves.slots.get(withdrawn.key)
        if slot is None:
            return
        shown = _hidden_by(withdrawn)
        self._shelves.slots[withdrawn.key] = tuple([shown.get(id(one), one) for one in slot])
        self._counts.restored += sum([id(one) in shown for one in slot])
        self._shelves.tell(withdrawn.key, withdrawn.at)

    def discard(self, withdrawn: Withdrawn) -> None:
        """Remove what it has hidden, or what is left of that."""
        hidden = _hidden_by(withdrawn)
        for record in self._shelves.slots.get(withdrawn.key, ()):
            if id(record) in hidden:
                self._shelves.remove(withdrawn.key, record)
                self._shelves.tell(withdrawn.key, withdrawn.at)


def others_at(slot: tuple[Record, ...], client: int) -> float:
    """Return when somebody other than this client was last given one of these answers."""
    latest = NEVER
    for one in slot:
        at: float = one[OTHERS_AT] if one[GIVEN_TO] == client else one[STORED_AT]
        latest = max(latest, at)
    return latest


def _hidden_by(withdrawn: Withdrawn) -> dict[int, Record]:
    """Return what a withdrawal has hidden, as it was, by the id() of what stands in its place."""
    return {
        id(one): old
        for one, old in zip(withdrawn.hidden, withdrawn.slot, strict=True)
        if one is not old
    }
