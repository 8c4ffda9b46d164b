"""How much each client asks for, in seconds of the application's work, decayed.

What is asked for counts, not what is got: so nothing feeds back, and nobody gains by being refused.
The table is bounded, and a request costs the same whatever is in it. It knows clients by numbers
(keyed hashes); a name is kept for those alone that ask for too much, to be shown to operators, and
nothing is kept longer than the demand decays.
"""

from array import array
from math import inf
from typing import Final

from retter.breaker import constants

NOBODY: Final = 0  # the number of a client that is not known: it is not counted

# A demand that halves every HALF_LIFE_S is the demand of so many seconds.
WINDOW_S: Final = constants.DEMAND_HALF_LIFE_S / 0.6931471805599453


class DemandTable:
    """The clients that asked lately. Seconds of work throughout."""

    __slots__ = (
        "_at",
        "_demand",
        "_forgotten",
        "_forgotten_at",
        "_free",
        "_given",
        "_given_at",
        "_got",
        "_hand",
        "_keys",
        "_names",
        "_slots",
    )

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}  # client -> slot
        self._free: list[int] = []
        self._keys = array("q")  # by slot; NOBODY if it is free
        self._demand = array("d")
        self._got = array("d")  # of what was asked for, sent to the application
        self._at = array("d")  # when the two were right
        self._names: list[str] = []  # by slot; "" of those that ask for little
        self._hand = 0  # the slot that is looked at next, to forget
        self._forgotten = 0.0  # demand of those that had no room
        self._forgotten_at = 0.0
        self._given = 0.0  # what all got
        self._given_at = 0.0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, client: int) -> bool:
        return client in self._slots

    def note(self, client: int, work_s: float, now: float) -> float:
        """Count what a client asks for; return its demand with that."""
        if client == NOBODY:
            return 0.0
        slot = self._slots.get(client, -1)
        if slot < 0:
            slot = self._take_slot(client, now)
        else:
            self._decay(slot, now)
        self._demand[slot] += work_s
        return self._demand[slot]

    def gave(self, client: int, work_s: float, now: float) -> None:
        """Count what a client gets."""
        if client == NOBODY:
            return
        self._given *= self._fade_of(now - self._given_at)
        self._given += work_s
        self._given_at = now
        slot = self._slots.get(client, -1)
        if slot >= 0:
            self._decay(slot, now)
            self._got[slot] += work_s

    def demand_of(self, client: int, now: float) -> float:
        """Return what a client asks for."""
        slot = self._slots.get(client, -1)
        return self._demand[slot] * self._faded(slot, now) if slot >= 0 else 0.0

    def got_by(self, client: int, now: float) -> float:
        """Return what a client gets."""
        slot = self._slots.get(client, -1)
        return self._got[slot] * self._faded(slot, now) if slot >= 0 else 0.0

    def given(self, now: float) -> float:
        """Return what all got."""
        return self._given * self._fade_of(now - self._given_at)

    def call(self, client: int, name: str) -> None:
        """Note the name under which operators see a client, as long as it is in here."""
        slot = self._slots.get(client, -1)
        if slot >= 0:
            self._names[slot] = name

    def name_of(self, client: int) -> str:
        """Return that name, or nothing."""
        slot = self._slots.get(client, -1)
        return self._names[slot] if slot >= 0 else ""

    def fair_share(self, now: float) -> float:
        """Return the demand up to which every client can have all that it asks for.

        Who asks for less than that makes nobody wait; the others would have just so much if what
        is left of what was given were divided evenly (max-min fairness). Infinite if all got what
        they asked for. Takes time in proportion to the table: for the clock, not for a request.
        Those with a number below 0 have no share: they get what is left.
        """
        left = self.given(now)
        left -= self._forgotten * self._fade_of(now - self._forgotten_at)
        if left <= 0:
            return 0.0
        demands = sorted(
            [
                self._demand[slot] * self._faded(slot, now)
                for client, slot in self._slots.items()
                if client > NOBODY
            ]
        )
        count = len(demands)
        left += 1e-6 * left  # sums in another order
        for demand in demands:
            if demand * count > left:
                return left / count
            left -= demand
            count -= 1
        return inf

    def heaviest(self, count: int, now: float) -> list[tuple[int, float, float]]:
        """Return (client, demand, got) of those that ask for most; for operators."""
        rows = [
            (client, self.demand_of(client, now), self.got_by(client, now))
            for client in self._slots
        ]
        rows.sort(key=lambda row: -row[1])
        return rows[:count]

    def advance(self, now: float) -> None:
        """Forget those whose demand has decayed; a part of the table with each tick."""
        for _ in range(min(len(self._keys), constants.DEMAND_LOOKED_AT_A_TICK)):
            slot = self._next_slot()
            if (
                self._keys[slot] != NOBODY
                and self._demand[slot] * self._faded(slot, now) < constants.DEMAND_LEAST_S
            ):
                self._forget(slot)
                self._free.append(slot)

    # --- slots ---

    def _take_slot(self, client: int, now: float) -> int:
        if self._free:
            slot = self._free.pop()
        elif len(self._keys) < constants.DEMAND_CLIENTS_MAX:
            slot = len(self._keys)
            self._keys.append(NOBODY)
            self._demand.append(0.0)
            self._got.append(0.0)
            self._at.append(0.0)
            self._names.append("")
        else:
            slot = self._lightest_at_hand(now)
            self._forgotten *= self._fade_of(now - self._forgotten_at)
            self._forgotten += self._demand[slot] * self._faded(slot, now)
            self._forgotten_at = now
            self._forget(slot)
        self._slots[client] = slot
        self._keys[slot] = client
        self._demand[slot] = self._got[slot] = 0.0
        self._at[slot] = now
        return slot

    def _lightest_at_hand(self, now: float) -> int:
        """Return the lightest of the next few slots: the heaviest client is never among them."""
        lightest, least = 0, inf
        for _ in range(constants.DEMAND_LOOKED_AT_FOR_ROOM):
            slot = self._next_slot()
            demand = self._demand[slot] * self._faded(slot, now)
            if demand < least:
                lightest, least = slot, demand
        return lightest

    def _next_slot(self) -> int:
        self._hand = (self._hand + 1) % len(self._keys)
        return self._hand

    def _forget(self, slot: int) -> None:
        client = self._keys[slot]
        self._keys[slot] = NOBODY
        del self._slots[client]
        self._names[slot] = ""

    def _decay(self, slot: int, now: float) -> None:
        fade = self._faded(slot, now)
        self._demand[slot] *= fade
        self._got[slot] *= fade
        self._at[slot] = now

    def _faded(self, slot: int, now: float) -> float:
        return self._fade_of(now - self._at[slot])

    @staticmethod
    def _fade_of(age_s: float) -> float:
        return float(0.5 ** (age_s / constants.DEMAND_HALF_LIFE_S))
