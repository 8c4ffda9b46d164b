"""Tells the leader what happens in this worker."""

from collections.abc import Callable
from typing import Final

from retter.breaker.elsewhere import Elsewhere
from retter.breaker.figures import route_number_of
from retter.breaker.opening import Opening
from retter.breaker.permit import Permit
from retter.breaker.routes import Route
from retter.breaker.states import Signal, State
from retter.judgement.events import (
    IS_GET,
    IS_JUDGED,
    IS_SLOW,
    PROBES_CIRCUIT,
    PROBES_ROUTE,
    UNCONGESTED,
    Happened,
    Ring,
)
from retter.judgement.memory import FAILED, PASSED, PROBED_AT, Memory
from retter.judgement.names import Names

_PASSED: Final = int(Happened.PASSED)


class Teller(Elsewhere):
    """Writes events into this worker's ring.

    Args:
        on_follow: Called with the state when an operator's order has changed it in this worker.
    """

    __slots__ = ("_floats", "_known", "_names", "_on_follow", "_other", "_ring", "_word", "_words")

    def __init__(
        self,
        memory: Memory,
        index: int,
        other: Route,
        on_follow: Callable[[State], None] | None,
    ) -> None:
        self._ring = Ring(memory, index)
        self._names = Names(memory, index)
        self._words = memory.words
        self._floats = memory.floats
        self._word = memory.slots[index].word
        self._other = other  # the route that all others share
        self._on_follow = on_follow
        self._known: set[int] = set()  # numbers whose names have been written

    def number_of(self, route: Route) -> int:
        """Return the number of a route, and make its name known to all workers."""
        if route is self._other:
            return 0
        number = route_number_of(route)
        if number not in self._known:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known.add(number)
            self._names.write(number, route.name)
        return number

    def tell(self, at: float, permit: Permit, kind: int, opening: Opening) -> None:
        """Write an event of this request; `opening` is the circuit's latest one."""
        flags = (
            (IS_GET if permit.is_get else 0)
            | (UNCONGESTED if permit.uncongested else 0)
            | (IS_JUDGED if permit.is_judged else 0)
            | (IS_SLOW if permit.is_slow else 0)
        )
        if permit.probe is not None:
            flags |= PROBES_CIRCUIT if permit.probe is opening else PROBES_ROUTE
        self._ring.write(
            at,
            permit.started_at,
            self.number_of(permit.route),
            permit.client,
            permit.rank,
            permit.generation,
            kind,
            flags,
        )
        self._words[self._word + (PASSED if kind == _PASSED else FAILED)] += kind <= _ENDED

    def fire(self, now: float, signal: Signal) -> None:
        """Tell the leader a reason for a change of state: a GET found no place."""
        assert signal is Signal.NO_PERMITS, f"{signal} is the leader's"
        self._ring.write(now, now, 0, 0, 0, 0, int(Happened.NO_PLACE), 0)

    def slow(self, now: float, permit: Permit) -> None:
        """Tell the leader that a GET outlived its patience."""
        flags = IS_GET
        if permit.probe is not None:
            flags |= PROBES_ROUTE if permit.probe is permit.route.opening else PROBES_CIRCUIT
        self._ring.write(
            now,
            permit.started_at,
            self.number_of(permit.route),
            permit.client,
            permit.rank,
            permit.generation,
            int(Happened.SLOW),
            flags,
        )

    def late(self, now: float, permit: Permit) -> None:
        """Tell the leader that a request in flight is late already."""
        self._ring.write(
            now,
            permit.started_at,
            self.number_of(permit.route),
            permit.client,
            permit.rank,
            permit.generation,
            int(Happened.LATE),
            0,
        )

    def probed(self, now: float, permit: Permit) -> None:
        """Tell the leader that a route is probed; all workers see a probe of the circuit."""
        if permit.probe is not permit.route.opening:
            self._floats[self._word + PROBED_AT] = now
        else:
            self._ring.write(
                now,
                now,
                self.number_of(permit.route),
                permit.client,
                0,
                0,
                int(Happened.PROBED),
                PROBES_ROUTE,
            )

    def moved(self, state: State) -> None:
        """Report the state that an operator's order has set here."""
        if self._on_follow is not None:
            self._on_follow(state)


_KNOWN_MAX: Final = 1024  # a site has some dozens of routes; a name may be written again
_ENDED: Final = int(Happened.REFUSED)  # the kinds up to this one end a request
