"""The demand of clients over all workers.

A client's connections may come to any worker, so each worker sees a part of its demand. Four times
a second each worker tells the demand of its heaviest clients, and adds what the others tell.
"""

from heapq import nlargest
from math import fsum
from typing import Final

from retter.breaker.demand import NOBODY, DemandTable
from retter.judgement.memory import DEMANDS_MAX, Memory

_SHIFT: Final = 32  # a client's number is written in two parts, each of which a float holds exactly
_MASK: Final = (1 << _SHIFT) - 1


class SharedDemand(DemandTable):
    """A demand table that knows the heaviest clients of the other workers, too."""

    __slots__ = ("_elsewhere", "_given_elsewhere", "_rest_elsewhere", "_told_at")

    def __init__(self) -> None:
        super().__init__()
        self._elsewhere: dict[int, float] = {}  # the demand of clients in other workers
        self._given_elsewhere = 0.0  # the work forwarded for all clients there
        self._rest_elsewhere = 0.0  # the demand there of clients without a row
        self._told_at = 0.0  # the time for which these hold

    def tell(self, memory: Memory, index: int, now: float) -> None:
        """Tell the other workers; crawlers are left out, because they have no share."""
        own = [
            (self._demand[slot] * self._faded(slot, now), client)
            for client, slot in self._slots.items()
            if client > NOBODY
        ]
        heaviest = nlargest(DEMANDS_MAX, own)
        rest = super()._removed(now)
        if len(own) > DEMANDS_MAX:
            rest += fsum([one[0] for one in own]) - fsum([one[0] for one in heaviest])
        said = [now, super().given(now), rest]
        for demand, client in heaviest:
            said += (client >> _SHIFT, client & _MASK, demand)
        memory.slots[index].demand.write(said)

    def hear(self, memory: Memory, others: list[int], now: float) -> None:
        """Read the demand that these workers have written."""
        self._elsewhere = {}
        self._given_elsewhere = self._rest_elsewhere = 0.0
        self._told_at = now
        for index in others:
            read = memory.slots[index].demand.read()
            if read is None:
                continue
            at, given, rest, *rows = read[1]
            faded = self._fade_of(max(0.0, now - at))
            self._given_elsewhere += given * faded
            self._rest_elsewhere += rest * faded
            for high, low, demand in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
                client = int(high) << _SHIFT | int(low)
                self._elsewhere[client] = self._elsewhere.get(client, 0.0) + demand * faded

    @property
    def is_empty(self) -> bool:
        """Whether no client has asked any worker for anything lately."""
        return not (self._slots or self._elsewhere)

    def demand_of(self, client: int, now: float) -> float:
        """Return a client's demand in all workers."""
        there = self._elsewhere.get(client, 0.0)
        if there:
            there *= self._fade_of(now - self._told_at)
        return super().demand_of(client, now) + there

    def given(self, now: float) -> float:
        """Return the work forwarded for all clients in all workers."""
        return super().given(now) + self._given_elsewhere * self._fade_of(now - self._told_at)

    def demands(self, now: float) -> list[float]:
        """Return the demands in ascending order, without those of crawlers."""
        known = {client for client in self._slots if client > NOBODY}
        return sorted([self.demand_of(client, now) for client in known.union(self._elsewhere)])

    def _removed(self, now: float) -> float:
        return super()._removed(now) + self._rest_elsewhere * self._fade_of(now - self._told_at)
