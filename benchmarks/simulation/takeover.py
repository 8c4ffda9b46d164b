"""One process after another in front of a simulated application, as after SIGUSR2.

The simulation has no processors: what visitors lose here by a takeover is lost because the new
process does not know something, and not because its start takes time.
"""

import json
from typing import Any

from benchmarks.simulation.engine import Engine
from benchmarks.simulation.proxy import Proxy, Request
from retter.base.errors import Outcome
from retter.breaker import CircuitBreaker
from retter.continuity.handover import demand_of, go_on, spent_of, state_of
from retter.continuity.shared import Shared

Report = dict[str, Any]


def _as_sent(said: Report) -> Report:
    received: Report = json.loads(json.dumps(said))
    return received


class _Leaving:
    """A breaker whose process takes no new requests, and the reports between it and the next."""

    def __init__(self, breaker: CircuitBreaker, follower: CircuitBreaker, now: float) -> None:
        self.breaker = breaker
        self._ours = Shared(breaker.circuit, comes=False)
        self._theirs = Shared(follower.circuit, comes=True)
        self._theirs.take(_as_sent(self._ours.report()), now)

    def report(self, now: float) -> bool:
        """Exchange reports; return whether anything is left to do."""
        self._ours.take(_as_sent(self._theirs.report()), now)
        self._theirs.take(_as_sent(self._ours.report()), now)
        circuit = self.breaker.circuit
        if self.breaker.waiting or circuit.limit.in_flight > self._ours.others:
            return True
        self._theirs.end()
        return False


class Succession(Proxy):
    """A proxy that is followed by another one, again and again.

    Each request stays with the breaker that decided about it, as it does with its process.
    """

    def __init__(self, engine: Engine, *rest: Any) -> None:
        self._leaving: list[_Leaving] = []
        self._decided_by: dict[Request, Any] = {}
        self.takeovers = 0
        super().__init__(engine, *rest)

    def take_over_each(self, every_s: float, until: float) -> None:
        """Have a takeover each so many seconds."""
        self._every_s, self._until = every_s, until
        self._engine.at(every_s, self._take_over)

    def _take_over(self, _: object) -> None:
        now, before = self._engine.now, self._breaker
        after = self._make_breaker(now, self._run)
        assert isinstance(before, CircuitBreaker) and isinstance(after, CircuitBreaker)
        self._hand_over(before, after, now)
        self._leaving.append(_Leaving(before, after, now))
        self._breaker = after
        self.takeovers += 1
        if now + self._every_s < self._until:
            self._engine.at(now + self._every_s, self._take_over)

    def _hand_over(self, before: CircuitBreaker, after: CircuitBreaker, now: float) -> None:
        said = _as_sent(state_of(before.circuit))
        assert go_on(after.circuit, said, demand_of(before.circuit), spent_of(before.circuit), now)

    def _decide(self, request: Request) -> None:
        self._decided_by[request] = self._breaker
        super()._decide(request)
        if request.permit is None:
            del self._decided_by[request]

    def _by(self, breaker: Any, step: Any, *rest: Any) -> None:
        present, self._breaker = self._breaker, breaker
        try:
            step(*rest)
        finally:
            self._breaker = present

    def _start(self, request: Request) -> None:
        self._by(self._decided_by.get(request, self._breaker), super()._start, request)

    def _upstream_answered(self, request: Request, outcome: Outcome) -> None:
        breaker = self._decided_by.get(request, self._breaker)
        self._by(breaker, super()._upstream_answered, request, outcome)

    def _end(self, request: Request, outcome: Outcome, status: int) -> None:
        breaker = self._decided_by.pop(request, self._breaker)
        self._by(breaker, super()._end, request, outcome, status)

    def _tick(self, _: object) -> None:
        now = self._engine.now
        for leaving in list(self._leaving):
            self.answer_late(leaving.breaker.tick(now))
            if leaving.breaker.waiting:
                self._by(leaving.breaker, self.start_ready)
            if not leaving.report(now):
                self._leaving.remove(leaving)
        super()._tick(_)
