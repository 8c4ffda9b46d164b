"""Work that is due at a certain time: expired waits and patience, windows, stalls, dips, relief.

The tick calls it twenty times a second. Only this module examines many requests at a time.
"""

from math import inf

from retter.base.reason import Reason
from retter.breaker import constants, endings
from retter.breaker.circuit import Circuit
from retter.breaker.decide import PAUSED, line_max, shed
from retter.breaker.mode import HELD_OPEN, OBSERVE
from retter.breaker.permit import Permit
from retter.breaker.states import CLOSED, LIMITING, OPEN, Signal


def tick(circuit: Circuit, now: float) -> list[Permit]:
    """See `CircuitBreaker.tick`."""
    circuit.failures.advance(now)
    circuit.routes.advance(now)
    answer = _patience_over(circuit, now)
    if circuit.paused_until is not None and now >= circuit.paused_until:
        circuit.resume(now)
    if circuit.elsewhere is None and circuit.limit.window_due(now, circuit.baseline.mean_s):
        _close_window(circuit, now)
    circuit.routes.make_room()
    fairness, enough = circuit.fairness, circuit.state is CLOSED
    if (
        fairness is not None
        and fairness.tick(now, circuit.limit.work_rate, circuit.baseline.mean_s, enough=enough)
        and not enough
        and circuit.room.fairness is not None
    ):
        circuit.room.sort(fairness, now)
    if circuit.elsewhere is None:
        _judge(circuit, now)
    if circuit.state is OPEN and circuit.room.waiting:
        _probe_from_the_line(circuit, now)
    if circuit.room.waiting:
        answer += _waited_long_enough(circuit, now)
    return answer


def _judge(circuit: Circuit, now: float) -> None:
    """Look for a reason to change the state, or to lower the cap for a moment."""
    if circuit.state is CLOSED:
        endings.look_for_saturation(circuit, now)
    elif circuit.state is LIMITING:
        if circuit.dips.due(now, circuit.baseline.mean_s):
            circuit.limit.restart_window(now)
            circuit.set_cap()
        _look_for_relief(circuit, now)


# --- those who wait ---


def _waited_long_enough(circuit: Circuit, now: float) -> list[Permit]:
    settings, room = circuit.settings, circuit.room
    paused = circuit.paused_until is not None
    if not paused:
        room.release_others(now, settings.write_wait_s)
        if circuit.state is CLOSED:
            room.release_gets(now, circuit.pace_s)
            return []
    expired = room.expired(
        now,
        constants.HELD_S_MAX if paused else settings.queue_wait_s,
        lambda lane: min(
            settings.queue_wait_s, constants.STORED_WAIT_PATIENCE * circuit.stored_wait_s(lane)
        ),
        lambda lane: 1.0 + line_max(circuit, lane, True),
        constants.HELD_S_MAX if paused else inf,
    )
    if expired:
        if not paused:  # during a pause it says nothing about the application
            circuit.limit.shed_at = now
        for permit in expired:
            if permit.has_stored:  # its wait is always a short one
                permit.reason = shed(circuit, True).reason
            elif paused:
                permit.reason = Reason.PAUSED
                circuit.rejections.rejects[PAUSED.rejection].count += 1
            else:
                permit.reason = Reason.QUEUE_TIMEOUT
                circuit.counts.queue_timeouts += 1
    return expired


def _probe_from_the_line(circuit: Circuit, now: float) -> None:
    """If a probe is due, send a waiting request as the probe, without waiting for a new one."""
    opening = circuit.opening
    if not opening.due(now) or circuit.mode is HELD_OPEN or circuit.paused_until is not None:
        return
    if now >= opening.probe_at + constants.DOUBTED_PROBE_S:
        permit = circuit.room.next_get()
    else:
        permit = circuit.room.next_believed(circuit.failures.clients, now)
    if permit is not None:
        circuit.send_probe(now, permit, opening)
        permit.reason = Reason.PROBE
        circuit.room.release(permit)


# --- patience ---


def _patience_over(circuit: Circuit, now: float) -> list[Permit]:
    flight = circuit.flight
    for permit in flight.grown_old(now - circuit.settings.patience_min_s):
        if permit.first_byte_at >= 0:
            flight.look_at(permit, permit.first_byte_at + constants.BODY_MAX_S)
        else:
            patience_s = circuit.settings.patience_s(permit.route.expected_s)
            flight.look_at(permit, permit.started_at + patience_s)
    return [permit for permit in flight.due(now) if _look_at(circuit, now, permit)]


def _look_at(circuit: Circuit, now: float, permit: Permit) -> bool:
    """Examine a permit that is due; return whether its client must be answered now."""
    if permit.first_byte_at >= 0:
        endings.detach(circuit, now, permit)
        return False
    if not permit.is_slow:
        endings.outlived_patience(circuit, now, permit)
    if not permit.has_stored:
        return False  # there is nothing else to answer with
    if not loses_patience(circuit, now, permit):
        circuit.flight.look_at(permit, now + constants.PATIENCE_AGAIN_S)
        return False
    if circuit.mode is OBSERVE:
        circuit.counts.would_answer_late += 1
        return False
    circuit.counts.answered_late += 1
    permit.reason = Reason.PATIENCE
    return True


def loses_patience(circuit: Circuit, now: float, permit: Permit) -> bool:
    """Return whether a slow GET gets its stored response now.

    A closed circuit waits longer, because in that case only this request is late, not the
    application.
    """
    if circuit.state is not CLOSED or permit.probe or permit.route.opening:
        return True
    return now - permit.started_at >= circuit.settings.patience_while_closed_s(
        permit.route.expected_s
    )


# --- windows ---


def _close_window(circuit: Circuit, now: float) -> None:
    limit = circuit.limit
    limit.close_window(now, crowded=circuit.crowded)
    endings.count_late(circuit, now)
    circuit.table.advance(now)
    if circuit.state is CLOSED:
        limit.set_limit(limit.closed_limit)
    elif circuit.state is LIMITING and not circuit.dips.active:
        limit.set_limit(limit.limit_for(limit.work_rate))
    circuit.set_cap()


# --- into LIMITING and out of it ---


def _look_for_relief(circuit: Circuit, now: float) -> None:
    circuit.pulse.stalls(now, circuit.flight)
    relief_s = max(constants.RELIEF_MIN_S, constants.RELIEF_BASELINES * circuit.baseline.mean_s)
    if (
        not circuit.waiting
        and now - circuit.limit.shed_at >= relief_s
        and circuit.limit.load <= constants.RELIEF_SHARE * circuit.limit.limit
        and not circuit.pulse.hung
    ):
        circuit.fire(now, Signal.RELIEVED)
