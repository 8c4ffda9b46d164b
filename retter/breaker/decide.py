"""The decision about a request: a pure function. It reads the circuit and changes nothing.

`CircuitBreaker.admit` carries it out; `would` and the observe mode ask the same function.
"""

from enum import Enum, auto
from math import inf
from typing import Final, NamedTuple

from retter.base.reason import Reason
from retter.breaker import constants
from retter.breaker.circuit import Circuit
from retter.breaker.mode import HELD_CLOSED, HELD_OPEN, OBSERVE
from retter.breaker.permit import HEAVY, REJECTION_REASONS, STRANGER
from retter.breaker.routes import Route
from retter.breaker.states import CLOSED, HALF_OPEN, OPEN


class Action(Enum):
    """The action for a request."""

    FORWARD = auto()  # at once
    WAIT = auto()  # for a place; during a pause, for its end
    PROBE = auto()  # forward, to find out whether the application or the open route works again
    TRIAL = auto()  # forward, to find out whether the ceiling is still right
    REJECT = auto()  # answer the stored response, or 503


class Decision(NamedTuple):
    """An action and its reason in the log. Each possible decision is one shared object."""

    action: Action
    reason: Reason
    rejection: int = 0  # if REJECT: the index in `Rejections`
    for_lack_of_a_place: bool = False
    limits: bool = False  # the circuit enters LIMITING with this decision


FORWARD: Final = Decision(Action.FORWARD, Reason.ADMITTED)
_WAIT: Final = Decision(Action.WAIT, Reason.ADMITTED)
_PROBE: Final = Decision(Action.PROBE, Reason.PROBE)
_TRIAL: Final = Decision(Action.TRIAL, Reason.ADMITTED)


def _rejection(reason: Reason, *, for_lack_of_a_place: bool = False) -> Decision:
    return Decision(Action.REJECT, reason, REJECTION_REASONS.index(reason), for_lack_of_a_place)


# Constants, because a dictionary look-up by reason costs 0.15 us: an Enum's hash is Python code.
PAUSED: Final = _rejection(Reason.PAUSED)
_FRESH_ENOUGH: Final = _rejection(Reason.FRESH_ENOUGH)
SINGLE_FLIGHT: Final = _rejection(Reason.SINGLE_FLIGHT)
_ROUTE_OPEN: Final = _rejection(Reason.ROUTE_OPEN)
SHED_OPEN: Final = _rejection(Reason.OPEN, for_lack_of_a_place=True)
SHED_HELD_OPEN: Final = _rejection(Reason.FORCED_OPEN, for_lack_of_a_place=True)
_SHED_HALF_OPEN: Final = _rejection(Reason.HALF_OPEN, for_lack_of_a_place=True)
_FAIR_SHARE: Final = _rejection(Reason.FAIR_SHARE, for_lack_of_a_place=True)
_LIMIT: Final = _rejection(Reason.LIMIT, for_lack_of_a_place=True)
_QUEUE_FULL: Final = _rejection(Reason.QUEUE_FULL, for_lack_of_a_place=True)


def decide(
    circuit: Circuit,
    now: float,
    is_get: bool,
    route: Route,
    key: bytes,
    stored_age_s: float | None,
    client: int,
    lane: int = STRANGER,
) -> Decision:
    """Decide about one request. `stored_age_s` is None if it cannot be answered from the store."""
    has_stored = stored_age_s is not None
    if circuit.paused_until is not None:
        return PAUSED if has_stored or circuit.held >= constants.HELD_MAX else _WAIT
    if not is_get:
        return _decide_other(circuit)
    if circuit.mode is HELD_CLOSED:
        return FORWARD
    held_open = circuit.mode is HELD_OPEN
    if held_open and has_stored:
        return SHED_HELD_OPEN
    if circuit.state is OPEN:
        if not held_open and circuit.opening.due(now) and _may_probe(circuit, now, client):
            return _PROBE
        return SHED_OPEN if has_stored else _by_place(circuit, now, key, None, lane)
    if route.opening is not None:
        return _PROBE if route.opening.due(now) else _ROUTE_OPEN
    room, closed = circuit.room, circuit.state is CLOSED
    if closed:
        # Without a place, a GET waits `pace_s` at most and then goes upstream. But if the known
        # ceiling or the operator's limit is reached, the circuit enters LIMITING.
        if circuit.limit.load < circuit.cap and not room.waiting:
            return FORWARD
        if not circuit.concluded and room.waiting < circuit.settings.queue_max:
            return _WAIT
    decision = _by_place(circuit, now, key, stored_age_s, lane)
    if closed:
        return decision._replace(limits=True)
    if (
        lane == HEAVY
        and decision.for_lack_of_a_place
        # Would it get a place if its client were not heavy?
        and _by_place(circuit, now, key, stored_age_s, STRANGER).action is not Action.REJECT
    ):
        return _FAIR_SHARE
    return decision


def _may_probe(circuit: Circuit, now: float, client: int) -> bool:
    """Return whether this client's request may be the probe.

    A client in doubt may send it only after DOUBTED_PROBE_S without another.
    """
    if now >= circuit.opening.probe_at + constants.DOUBTED_PROBE_S:
        return True
    return not circuit.failures.clients.is_doubted(client, now)


def _decide_other(circuit: Circuit) -> Decision:
    """Forward other methods; at a known ceiling, or with all of a box's part, they wait first."""
    settings, room = circuit.settings, circuit.room
    if (
        (circuit.limit.in_flight < circuit.full_at and not room.others)
        or circuit.mode is HELD_CLOSED
        or room.waiting >= settings.queue_max
        or not settings.write_wait_s
    ):
        return FORWARD
    return _WAIT


def _waiting(circuit: Circuit, waiting: int) -> int:
    """Return how many wait. In observe mode none do, so those above the cap are counted instead."""
    if circuit.mode is OBSERVE:
        return max(0, int(circuit.limit.load - circuit.cap))
    return waiting


def _by_place(
    circuit: Circuit, now: float, key: bytes, stored_age_s: float | None, lane: int
) -> Decision:
    """Forward the GET if a place is free and it is its turn. Else let it wait if that is short."""
    room, settings = circuit.room, circuit.settings
    if stored_age_s is not None and stored_age_s < settings.fresh_for_s:
        return _FRESH_ENOUGH
    waiting = _waiting(circuit, room.in_front(lane))
    if circuit.limit.load < circuit.cap and not waiting:
        return FORWARD
    has_stored = stored_age_s is not None
    if has_stored:
        if key in circuit.flight.keys:
            return SINGLE_FLIGHT
        if trial_due(circuit, now):
            return _TRIAL
    elif waiting >= settings.queue_max or room.is_full(lane, settings.queue_max):
        return shed(circuit, has_stored)
    ahead = _waiting(circuit, room.ahead(lane, has_stored=has_stored))
    return _WAIT if ahead < line_max(circuit, lane, has_stored) else shed(circuit, has_stored)


def shed(circuit: Circuit, has_stored: bool) -> Decision:
    """Return the rejection of a GET that gets no place in time."""
    if circuit.mode is HELD_OPEN:
        return SHED_HELD_OPEN
    if circuit.state is OPEN:
        return SHED_OPEN
    if not has_stored:
        return _QUEUE_FULL
    return _SHED_HALF_OPEN if circuit.state is HALF_OPEN else _LIMIT


def line_max(circuit: Circuit, lane: int, has_stored: bool) -> float:
    """Return how many may wait before one more GET, so that its turn comes in time.

    Without a stored response there is no limit until the work rate is known to be the capacity.
    """
    limit = circuit.limit
    if has_stored:
        work_in_time_s = circuit.stored_wait_s(lane) * max(1.0, limit.work_rate)
    elif limit.crowded_windows < constants.CROWDED_WINDOWS:
        return inf
    else:
        work_in_time_s = constants.QUEUE_SHARE * circuit.settings.queue_wait_s * limit.gets_rate
    return work_in_time_s / max(constants.BASELINE_LEAST_S, circuit.baseline.mean_s)


def trial_due(circuit: Circuit, now: float) -> bool:
    """Return whether one request above the ceiling may be tried.

    The request has a stored response, so it can be answered even if the trial fails.
    """
    table = circuit.table
    return (
        now >= table.trial_at
        and circuit.cap == table.ceiling
        and circuit.limit.in_flight == table.ceiling
    )
