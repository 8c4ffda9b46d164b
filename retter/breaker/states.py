"""The circuit's states and every legal transition between them.

A signal in a state that has no entry in the table is a bug of the controller and raises an error.
`Circuit._enter` sets up the parts that belong to a state when it is entered; no other code does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final


class State(Enum):
    """The circuit's state; its value is sent in the `X-Circuit` field."""

    CLOSED = "CLOSED"  # everything is forwarded
    LIMITING = "LIMITING"  # the application is full: GETs above the limit are shed
    OPEN = "OPEN"  # the application fails: probes only
    HALF_OPEN = "HALF-OPEN"  # the application answers again: the limit grows with every success


# Looked up once: they are asked for with every request.
CLOSED: Final = State.CLOSED
LIMITING: Final = State.LIMITING
OPEN: Final = State.OPEN
HALF_OPEN: Final = State.HALF_OPEN


class Signal(StrEnum):
    """The reason for a change of state."""

    SATURATED = "saturated"  # answers are late with many in flight, and more requests wait
    NO_PERMITS = "no-permits"  # a GET arrived at the ceiling or at the operator's limit
    OVERLOADED = "overloaded"  # the application refused or dropped work
    STALLED = "stalled"  # the application hangs: it answers nothing
    RELIEVED = "relieved"  # nothing had to be shed for a while
    FAILING = "failing"  # the error breaker's threshold was crossed
    PROBE_PASSED = "probe-passed"
    TRIAL_FAILED = "trial-failed"  # a failure or a late answer during the ramp
    TRIALS_PASSED = "trials-passed"  # the ramp is over
    FORCED_OPEN = "forced-open"  # an operator's command
    FORCED_CLOSED = "forced-closed"
    RELEASED = "released"  # the operator returned control


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
    # An operator's command is legal in every state. After RELEASED the circuit starts in the state
    # that does least harm.
    **{(state, Signal.FORCED_OPEN): State.OPEN for state in State},
    **{(state, Signal.FORCED_CLOSED): State.CLOSED for state in State},
    (State.OPEN, Signal.RELEASED): State.LIMITING,
    (State.CLOSED, Signal.RELEASED): State.CLOSED,
}


def next_state(state: State, signal: Signal) -> State:
    """Return the state after the signal; raise `AssertionError` if it must not occur in `state`."""
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
    ceiling: float  # C; infinite while failures have shown none
    work_rate: float  # W, busy workers
    baseline_s: float  # b0
    failures: int  # in the last 2 s
    successes: int
    waiting: int
