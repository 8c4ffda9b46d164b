"""Two classic circuit breakers behind the controller's interface, to compare with.

They decide as their models do about the whole application; shedding, serving from the store and
forwarding of other methods are as in the product, so that only the decision differs.
"""

from collections import deque
from collections.abc import Callable
from math import inf

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import Asker, Kind, Permit, Phase, Rejection, State
from retter.breaker.baseline import Baseline
from retter.breaker.routes import Route

_STORED = Rejection(Reason.OPEN, serve_stored=True, retry_after_s=2.0)
_REJECT = Rejection(Reason.OPEN, serve_stored=False, retry_after_s=2.0)


class Classic:
    """CLOSED, OPEN for a while, HALF-OPEN for a few trials; results of an old state are dropped."""

    waiting = 0

    def __init__(self, now: float, *, open_s: float, trials: int) -> None:
        self.state = State.CLOSED
        self.generation = 0
        self._open_s = open_s
        self._trials = trials
        self._opened_at = -inf
        self._started = 0
        self._passed = 0
        self._route = Route(b"all", now, Baseline())

    def admit(
        self,
        now: float,
        kind: Kind,
        route: bytes,
        key: bytes,
        stored_age_s: float | None,
        client: int = 0,
        asker: Asker | None = None,
    ) -> Permit | Rejection:
        """Forward unless open, or half-open with all trials on their way."""
        permit = Permit(
            Phase.ADMITTED,
            Reason.ADMITTED,
            kind is Kind.GET,
            self._route,
            key,
            stored_age_s is not None,
            0,
        )
        permit.generation = self.generation
        if kind is Kind.OTHER:
            return permit
        if self.state is State.OPEN and now - self._opened_at >= self._open_s:
            self._change(State.HALF_OPEN)
            permit.generation = self.generation
        if self.state is State.OPEN or (
            self.state is State.HALF_OPEN and self._started >= self._trials
        ):
            return _REJECT if stored_age_s is None else _STORED
        self._started += 1
        return permit

    def started(self, now: float, permit: Permit) -> None:
        """Note when."""
        permit.started_at = now

    def first_byte(self, now: float, permit: Permit) -> None:
        """Nothing depends on it."""

    def finished(self, now: float, permit: Permit, outcome: Outcome) -> None:
        """Count, and judge."""
        if permit.generation != self.generation or self.state is State.OPEN:
            return
        bad = self._is_bad(outcome, now - permit.started_at)
        if self.state is State.HALF_OPEN:
            if bad:
                self._open(now)
            else:
                self._passed += 1
                if self._passed >= self._trials:
                    self._change(State.CLOSED)
        elif self._trips(now, bad):
            self._open(now)

    def tick(self, now: float) -> list[Permit]:
        """Nothing is due."""
        return []

    def take_ready(self, now: float) -> list[Permit]:
        """Nobody waits."""
        return []

    def decide_again(
        self, now: float, permit: Permit, is_stored: Callable[[], bool]
    ) -> Reason | None:
        """Nobody waits."""
        return None

    def _is_bad(self, outcome: Outcome, took_s: float) -> bool:
        raise NotImplementedError

    def _trips(self, now: float, bad: bool) -> bool:
        raise NotImplementedError

    def _forget(self) -> None:
        raise NotImplementedError

    def _open(self, now: float) -> None:
        self._change(State.OPEN)
        self._opened_at = now

    def _change(self, state: State) -> None:
        self.state = state
        self.generation += 1
        self._started = self._passed = 0
        self._forget()


class ErrorBreaker(Classic):
    """After gobreaker as commonly set: 5 failures in a row, or half of at least 10 in 10 s."""

    def __init__(self, now: float) -> None:
        super().__init__(now, open_s=5.0, trials=5)
        self._interval_at = now
        self._forget()

    def _forget(self) -> None:
        self._calls = self._bad = self._in_a_row = 0

    def _is_bad(self, outcome: Outcome, took_s: float) -> bool:
        return outcome in (Outcome.OVERLOAD, Outcome.REFUSED, Outcome.ERROR)

    def _trips(self, now: float, bad: bool) -> bool:
        if now - self._interval_at >= 10.0:
            self._interval_at = now
            self._forget()
        self._calls += 1
        self._bad += bad
        self._in_a_row = self._in_a_row + 1 if bad else 0
        return self._in_a_row >= 5 or (self._calls >= 10 and 2 * self._bad >= self._calls)


class SlowCallBreaker(Classic):
    """After resilience4j: of the last 100 calls half failed or half were slower than 1 s."""

    def __init__(self, now: float) -> None:
        super().__init__(now, open_s=5.0, trials=10)
        self._forget()

    def _forget(self) -> None:
        self._last: deque[bool] = deque(maxlen=100)

    def _is_bad(self, outcome: Outcome, took_s: float) -> bool:
        return outcome in (Outcome.OVERLOAD, Outcome.REFUSED, Outcome.ERROR) or took_s > 1.0

    def _trips(self, now: float, bad: bool) -> bool:
        self._last.append(bad)
        return len(self._last) >= 20 and 2 * sum(self._last) >= len(self._last)
