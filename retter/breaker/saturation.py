"""Whether a closed circuit's application is saturated: answers are late with many in flight.

This examines many requests. It is done once a tick, and when an answer was late: the evidence is
complete then, and the next tick comes up to 50 ms later.
"""

from retter.breaker import constants
from retter.breaker.circuit import Circuit
from retter.breaker.permit import Permit
from retter.breaker.states import Signal


def look_for_saturation(circuit: Circuit, now: float) -> None:
    """Enter LIMITING if answers are late from some rank on, and requests wait.

    Without such a sign nothing is shed.
    """
    if not circuit.crowded or circuit.pulse.is_silent(now):
        return
    count_late(circuit, now)
    circuit.table.read_proven()
    if circuit.table.read_edge():
        circuit.fire(now, Signal.SATURATED)
    circuit.set_cap()


def count_late(circuit: Circuit, now: float) -> None:
    """Count the requests in flight that are late already, unless the application pauses."""
    for permit in late_in_flight(circuit, now):
        permit.row.late += 1


def late_in_flight(circuit: Circuit, now: float) -> list[Permit]:
    """Return the requests in flight that have become late, each once."""
    late: list[Permit] = []
    pulse = circuit.pulse
    if pulse.is_silent(now):
        return late
    for permit in circuit.flight.oldest_first(constants.LOOKED_AT_MAX):
        age_s = now - permit.started_at
        if age_s <= constants.LATE_SLACK_S:
            break
        if (
            not permit.is_judged
            and permit.started_at >= pulse.woke_at
            and age_s > permit.route.late_after_s
        ):
            permit.is_judged = True
            late.append(permit)
    return late
