"""The circuit's states and every legal move between them.

A pair that is absent from the table is a bug of the controller and raises. What belongs to a state
is set up when it is entered, in `Circuit._enter`, and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final


class State(Enum):
    """The circuit's state; the value is the word of the `X-Circuit` field."""

    CLOSED = "CLOSED"  # everything is forwarded
    LIMITING = "LIMITING"  # the application is full: GETs above the limit are shed
    OPEN = "OPEN"  # the application fails: probes only
    HALF_OPEN = "HALF-OPEN"  # it answers again: a limit that grows with every success


class Signal(StrEnum):
    """Why the state changes."""

    SATURATED = "saturated"  # answers are late with many in flight, and more wait
    NO_PERMITS = "no-permits"  # a GET came above the ceiling, or the operator's limit
    OVERLOADED = "overloaded"  # the application refused work, or dropped it
    STALLED = "stalled"  # the application hangs: nothing is answered
    RELIEVED = "relieved"  # nothing had to be shed for a while
    FAILING = "failing"  # the error breaker's threshold was crossed
    PROBE_PASSED = "probe-passed"
    TRIAL_FAILED = "trial-failed"  # a failure or a late answer during the ramp
    TRIALS_PASSED = "trials-passed"  # the ramp is over
    FORCED_OPEN = "forced-open"  # an operator's word
    FORCED_CLOSED = "forced-closed"
    RELEASED = "released"  # the operator lets go


NEXT_STATE: Final[Mapping[tuple[State, Signal], State]] = {
    (State.CLOSED, Signal.SATURATED): State.LIMITING,
    (State.CLOSED, Signal.NO_PERMITS): State.LIMITING,
    (State.CLOSED, Signal.OVERLOADED): State.LIMITING,
    (State.CLOSED, Signal.STALLED): State.LIMITING,
    (State.CLOSED, Signal.FAILING): State.OPEN,
    (State.LIMITING, Signal.FAILING): State.OPEN,
    (State.LIMITING, Signal.RELIEVED): State.CLOSED,
    (State.OPEN, Signal.PROBE_PASSED): State.HALF_OPEN,
    (State.HALF_OPEN, Signal.TRIAL_FAILED): State.OPEN,
    (State.HALF_OPEN, Signal.TRIALS_PASSED): State.LIMITING,
    # An operator's word goes from anywhere; what is released starts where it does least harm.
    **{(state, Signal.FORCED_OPEN): State.OPEN for state in State},
    **{(state, Signal.FORCED_CLOSED): State.CLOSED for state in State},
    (State.OPEN, Signal.RELEASED): State.LIMITING,
    (State.CLOSED, Signal.RELEASED): State.CLOSED,
}


def next_state(state: State, signal: Signal) -> State:
    """Return where the signal leads; raise `AssertionError` where it must not occur."""
    try:
        return NEXT_STATE[state, signal]
    except KeyError:
        raise AssertionError(f"signal {signal} in state {state.value}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of state, with the figures that an operator needs to judge it."""

    at: float  # monotonic seconds
    before: State
    after: State
    cause: Signal
    generation: int
    in_flight: int  # n
    limit: float  # L
    ceiling: float  # C; infinite while no failure has shown one
    work_rate: float  # W, busy workers
    baseline_s: float  # b0
    failures: int  # in the last 2 s
    successes: int
    waiting: int
