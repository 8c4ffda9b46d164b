"""The demand of each client: the seconds of the application's work that it asks for, decayed.

Demand counts the requests that a client sends, not those that are forwarded. So there is no
feedback, and a client gains nothing when its requests are rejected.

The table is bounded, and a request costs the same whatever the table holds. Clients are numbers
(keyed hashes). A name is kept only for clients that ask for too much, to show it to operators.
A client is removed when its demand has decayed.
"""

from array import array
from bisect import bisect_right
from math import inf
from typing import Final

from retter.breaker import constants

NOBODY: Final = 0  # the number of a client that is not known: it is not counted

# A demand that halves every DEMAND_HALF_LIFE_S is the sum over a window of this many seconds.
WINDOW_S: Final = constants.DEMAND_HALF_LIFE_S / 0.6931471805599453


class DemandTable:
    """The clients that sent requests lately. All demands are seconds of work."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}  # client -> slot
        self._free: list[int] = []
        self._keys = array("q")  # by slot; NOBODY if it is free
        self._demand = array("d")
        self._got = array("d")  # the part of the demand that was forwarded
        self._at = array("d")  # the time for which these two values hold
        self._names: list[str] = []  # by slot; "" for clients that ask for little
        self._hand = 0  # the slot examined last, when a slot to free is searched
        self._forgotten = 0.0  # demand of clients that were removed to make room
        self._forgotten_at = 0.0
        self._given = 0.0  # the work forwarded for all clients
        self._given_at = 0.0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def is_empty(self) -> bool:
        """Whether no client has asked for anything lately."""
        return not self._slots

    def __contains__(self, client: int) -> bool:
        return client in self._slots

    def note(self, client: int, work_s: float, now: float) -> float:
        """Add `work_s` to a client's demand; return the sum."""
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
        """Add `work_s` to the work forwarded for a client."""
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
        """Return a client's demand."""
        slot = self._slots.get(client, -1)
        return self._demand[slot] * self._faded(slot, now) if slot >= 0 else 0.0

    def got_by(self, client: int, now: float) -> float:
        """Return the work forwarded for a client."""
        slot = self._slots.get(client, -1)
        return self._got[slot] * self._faded(slot, now) if slot >= 0 else 0.0

    def given(self, now: float) -> float:
        """Return the work forwarded for all clients."""
        return self._given * self._fade_of(now - self._given_at)

    def call(self, client: int, name: str) -> None:
        """Set the name that operators see for a client, if it is in the table."""
        slot = self._slots.get(client, -1)
        if slot >= 0:
            self._names[slot] = name

    def name_of(self, client: int) -> str:
        """Return that name, or an empty string."""
        slot = self._slots.get(client, -1)
        return self._names[slot] if slot >= 0 else ""

    def demands(self, now: float) -> list[float]:
        """Return the demands in ascending order, without those of crawlers (numbers below 0).

        The time grows with the table, so the tick calls this, not a request.
        """
        return sorted(
            [
                self._demand[slot] * self._faded(slot, now)
                for client, slot in self._slots.items()
                if client > NOBODY
            ]
        )

    def fair_share(self, demands: list[float], now: float) -> float:
        """Return the fair share: a client gets all that it asks for up to this demand.

        This is max-min fairness: the work forwarded for all is divided. Clients that ask for less
        than the fair share get all of it. The rest is divided evenly among the others, and each
        part is the fair share. It is infinite if all got what they asked for. Crawlers have no
        share: they get what is left.
        """
        left = self.given(now) - self._removed(now)
        if left <= 0:
            return 0.0
        count = len(demands)
        left += 1e-6 * left  # tolerance: the order of a sum changes its rounding
        for demand in demands:
            if demand * count > left:
                return left / count
            left -= demand
            count -= 1
        return inf

    def explains(self, demands: list[float], limit_s: float, now: float) -> bool:
        """Return whether the clients that ask for more than `limit_s` cause the shortage.

        They do if they ask for at least SHORTAGE_SHARE of the work that was not forwarded.
        """
        missing_s = sum(demands) + self._removed(now) - self.given(now)
        above_s = sum(demands[bisect_right(demands, limit_s) :])
        return above_s >= constants.SHORTAGE_SHARE * missing_s

    def heaviest(self, count: int, now: float) -> list[tuple[int, float, float]]:
        """Return (client, demand, got) of the clients with the largest demand; for operators."""
        rows = [
            (client, self.demand_of(client, now), self.got_by(client, now))
            for client in self._slots
        ]
        rows.sort(key=lambda row: -row[1])
        return rows[:count]

    def advance(self, now: float) -> None:
        """Remove clients whose demand has decayed; each tick examines a part of the table."""
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
            self._forgotten = self._removed(now) + self._demand[slot] * self._faded(slot, now)
            self._forgotten_at = now
            self._forget(slot)
        self._slots[client] = slot
        self._keys[slot] = client
        self._demand[slot] = self._got[slot] = 0.0
        self._at[slot] = now
        return slot

    def _removed(self, now: float) -> float:
        """Return the demand of the clients that were removed to make room."""
        return self._forgotten * self._fade_of(now - self._forgotten_at)

    def _lightest_at_hand(self, now: float) -> int:
        """Return the slot with the least demand of the next few.

        So the heaviest client is never removed.
        """
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
