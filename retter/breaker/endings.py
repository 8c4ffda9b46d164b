"""Learns from the end of each request: service times, failures, and the proven rank.

`succeeded` takes constant time. So does `failed`, unless it has to examine the table or the routes.
"""

from bisect import bisect_left
from math import inf
from typing import Final

from retter.base.counters import LATENCY_BOUNDS_S
from retter.breaker import constants
from retter.breaker.circuit import Circuit
from retter.breaker.clients import Clients
from retter.breaker.permit import Permit, Phase
from retter.breaker.routes import Route
from retter.breaker.states import CLOSED, HALF_OPEN, LIMITING, OPEN, Signal

# From this number of samples on, a baseline gives each one the same weight and clips outliers.
_SETTLED_SAMPLES: Final = max(int(1.0 / constants.BASELINE_WEIGHT), constants.BASELINE_CLIP_AFTER)


def detach(circuit: Circuit, now: float, permit: Permit) -> None:
    """Stop counting a tunnel or a stream: it no longer shows the application's load.

    Nothing happens if the tick has detached it already.
    """
    if permit.phase is Phase.DETACHED:
        return
    assert permit.phase is Phase.IN_FLIGHT, f"{permit} cannot be detached"
    permit.phase = Phase.DETACHED
    leave(circuit, now, permit, False)


def leave(circuit: Circuit, now: float, permit: Permit, completed: bool) -> None:
    """Count a request out of those in flight; `completed` if the application answered it."""
    limit = circuit.limit
    limit.in_flight -= 1
    limit.load -= 1
    if limit.old_others:
        limit.old_others -= permit.is_slow and not permit.is_get
        limit.weigh()
    circuit.flight.leave(permit)
    if permit.is_cold:
        circuit.baseline.cold_leave(now, completed=completed)


# --- a good answer ---


def succeeded(circuit: Circuit, now: float, permit: Permit) -> None:
    """Record a good answer."""
    route, state = permit.route, circuit.state
    probes = permit.probe is not None or route.opening is not None
    counts = not probes and permit.generation == circuit.generation
    permit.ended_at = now
    _learn_of(circuit, permit, counts)
    circuit.limit.completions += 1
    if counts:
        circuit.failures.clients.passed(permit.client, now)
        _passed(circuit, 1)
    table = circuit.table
    if permit.rank > table.ceiling:
        table.passed_above_ceiling(now, permit.rank)
        circuit.set_cap()
    if probes:
        _probe_passed(circuit, now, permit)
    elif not counts:
        pass
    elif state is CLOSED:
        if circuit.room.waiting:
            _look_early(circuit, now)
    elif state is HALF_OPEN:
        circuit.climb(now)
    elif state is OPEN and not permit.is_get:
        circuit.fire(now, Signal.PROBE_PASSED)


def learn(circuit: Circuit, permits: list[Permit]) -> None:
    """Learn from usual answers (`CircuitBreaker.finished_whole`), each at its `ended_at`.

    It does the same as `succeeded` for each of them in this order.
    """
    at = 0
    while at < len(permits):
        learnt = _learn_of_run(circuit, permits[at:] if at else permits)
        if not learnt:
            _learn_of(circuit, permits[at], True)
            learnt = 1
        at += learnt
    circuit.limit.completions += len(permits)
    _note_clients(circuit.failures.clients, permits)
    _passed(circuit, len(permits))


def _passed(circuit: Circuit, number: int) -> None:
    """Count so many good outcomes."""
    failures = circuit.failures
    failures.recent.passed += number
    if failures.in_a_row:
        failures.end_row()


def _note_clients(clients: Clients, permits: list[Permit]) -> None:
    """Note which clients got good answers.

    Nothing is remembered of them but which were the last ones, unless one of them is in doubt.
    """
    latest: dict[int, float] = {}
    client = -1  # numbers are not below 0
    for permit in reversed(permits):
        if permit.client != client:
            client = permit.client
            if client not in latest:
                latest[client] = permit.ended_at
                if len(latest) == constants.CLIENTS_AGREE and not clients.doubts:
                    break
    for client, ended_at in reversed(latest.items()):
        clients.passed(client, ended_at)


def _learn_of_run(circuit: Circuit, permits: list[Permit]) -> int:
    """Learn from the first of these usual answers that are of one route and in time.

    It does the same as `_learn_of` for each of them, which is nearly always all that is to be done:
    the application and this route are known, and the answers are neither late nor outliers. What is
    the same for all of them is looked up once, and written once: 174 instructions of the
    interpreter became 101. This runs for nearly every answer.

    Returns:
        The number of these answers.
    """
    limit, application = circuit.limit, circuit.baseline
    route = permits[0].route
    baseline, latency = route.baseline, route.latency
    if (
        application.cold is not None
        or circuit.state is LIMITING
        or baseline.samples < _SETTLED_SAMPLES
        or application.samples < _SETTLED_SAMPLES
    ):
        return 0
    weight, clip = constants.BASELINE_WEIGHT, constants.BASELINE_CLIP
    late_baselines, slack_s = constants.LATE_BASELINES, constants.LATE_SLACK_S
    mean_s, application_mean_s = baseline.mean_s, application.mean_s
    counts, total_s, work_s = latency.counts, latency.total, limit.work_s
    learnt = samples = 0
    for permit in permits:
        took_s = permit.ended_at - permit.started_at
        if (
            permit.route is not route
            or took_s > late_baselines * mean_s + slack_s
            or took_s > clip * mean_s
            or took_s > clip * application_mean_s
        ):
            break
        counts[bisect_left(LATENCY_BOUNDS_S, took_s)] += 1  # Histogram.add, inlined
        total_s += took_s
        work_s += mean_s
        if not permit.is_get:
            limit.others_work_s += mean_s
        permit.row.in_time += 1
        if permit.uncongested:  # Baseline.add, inlined
            mean_s += weight * (took_s - mean_s)
            application_mean_s += weight * (took_s - application_mean_s)
            samples += 1
        learnt += 1
    if learnt:
        latency.total = total_s
        limit.work_s = work_s
        baseline.mean_s, application.mean_s = mean_s, application_mean_s
        baseline.samples += samples
        application.samples += samples
        route.outcomes.passed += learnt
        circuit.pulse.passed_at = route.passed_at = permits[learnt - 1].ended_at
    return learnt


def _learn_of(circuit: Circuit, permit: Permit, counts: bool) -> None:
    """Learn from any good answer, at its `ended_at`.

    Args:
        counts: Whether it counts as an outcome: no probe, and started since the circuit opened.
    """
    limit, route, now = circuit.limit, permit.route, permit.ended_at
    took_s, known = now - permit.started_at, route.baseline.samples >= constants.ROUTE_SAMPLES_MIN
    expected_s = route.expected_s
    route.latency.add(took_s)
    limit.work_s += expected_s
    if not permit.is_get:
        limit.others_work_s += expected_s
    if known and took_s <= constants.LATE_BASELINES * expected_s + constants.LATE_SLACK_S:
        if not permit.is_judged:
            permit.row.in_time += 1
    else:
        _late(circuit, now, permit, took_s)
    circuit.pulse.passed_at = route.passed_at = now
    if permit.uncongested:
        _learn(circuit, now, route, took_s)
    if counts and not (permit.is_slow and known):
        route.outcomes.passed += 1


def _late(circuit: Circuit, now: float, permit: Permit, took_s: float) -> None:
    """Record an answer that is late, or whose route has too few samples.

    An answer after a pause of the application is not late because of queueing. Therefore requests
    that were in flight when the pause ended are not counted.
    """
    route, pulse = permit.route, circuit.pulse
    late_after_s = route.late_after_s
    if took_s <= late_after_s:
        permit.row.in_time += not permit.is_judged
        # Above SMALL the first answers may have waited in the application, and so may those that
        # they would be judged by.
        if late_after_s == inf and permit.rank <= constants.SMALL:
            route.unjudged.append((permit.row, took_s))
    elif took_s > pulse.silence_s and pulse.is_silent(now):
        pulse.woke_at = now
    elif not permit.is_judged and permit.started_at >= pulse.woke_at:
        permit.row.late += 1
    if route.first_answers.samples < constants.ROUTE_SAMPLES_MIN:
        route.add_first_answer(took_s)


def _learn(circuit: Circuit, now: float, route: Route, took_s: float) -> None:
    limiting = circuit.state is LIMITING
    weight = constants.BASELINE_WEIGHT_LIMITING if limiting else constants.BASELINE_WEIGHT
    route.baseline.add(took_s, weight)
    application = circuit.baseline
    if application.cold is None:
        application.add(took_s, weight)
    if limiting and circuit.dips.sample(now, application.mean_s):
        circuit.limit.restart_window(now)
        circuit.set_cap()


def _probe_passed(circuit: Circuit, now: float, permit: Permit) -> None:
    route = permit.route
    if permit.probe is circuit.opening:
        if circuit.state is OPEN:
            circuit.fire(now, Signal.PROBE_PASSED)
    # Other methods need no probe: they are always forwarded.
    elif (permit.probe is route.opening and not permit.is_slow) or not permit.is_get:
        route.close()


# --- late answers ---


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


def look_for_saturation(circuit: Circuit, now: float) -> None:
    """Enter LIMITING on a sign of saturation: late answers, or no answers at all.

    Without such a sign nothing is shed.
    """
    if circuit.pulse.stalls(now, circuit.flight):
        circuit.fire(now, Signal.STALLED)
    elif circuit.crowded and not circuit.pulse.is_silent(now):
        count_late(circuit, now)
        circuit.table.read_proven()
        if circuit.table.read_edge():
            circuit.fire(now, Signal.SATURATED)
        circuit.set_cap()


def _look_early(circuit: Circuit, now: float) -> None:
    """Look for saturation before the tick if more wait than can be served within the pace.

    They could not even if the application worked on all at once that are known to be good. So each
    answer is worth a look at the table.
    """
    in_time_s = circuit.pace_s * circuit.table.known_good
    if circuit.elsewhere is None and circuit.waiting * circuit.baseline.mean_s > in_time_s:
        look_for_saturation(circuit, now)


# --- a failure ---


def failed(circuit: Circuit, now: float, permit: Permit, *, refused: bool) -> None:
    """Record a failure: no answer, or a bad one."""
    route, failures, table = permit.route, circuit.failures, circuit.table
    route.errors += 1
    counts = failures.clients.failed(permit.client, now) or refused
    if permit.probe is not None or route.opening is not None:
        if counts and permit.probe is not None and not permit.is_slow:
            permit.probe.failed(now, refused=refused)
        return
    if permit.generation != circuit.generation or not counts:
        return
    permit.row.failed += 1
    agreed = refused or failures.clients.agree(now)
    if failures.refused_in_a_row + refused < constants.REFUSALS_IN_A_ROW:
        if permit.rank > table.ceiling:
            table.failed_above_ceiling()
            return  # the ceiling explains this failure
        if circuit.state is not OPEN and agreed and table.read_ceiling():
            _ceiling_lowered(circuit, now)
            return
    failures.failed(route, refused=refused)
    if not permit.is_slow or route.baseline.samples < constants.ROUTE_SAMPLES_MIN:
        route.outcomes.failed += 1
    if circuit.state is HALF_OPEN:
        if not failures.clients.is_doubted(permit.client, now):
            circuit.fire(now, Signal.TRIAL_FAILED)
    elif circuit.state is not OPEN and agreed:
        _judge(circuit, now, route)


def outlived_patience(circuit: Circuit, now: float, permit: Permit) -> None:
    """Record that a request takes longer than its patience.

    A GET counts as failed if its route has enough samples. Other methods may take long; they count
    for less in the load from now on.
    """
    permit.is_slow = True
    route = permit.route
    if not permit.is_get:
        circuit.limit.discount()
    elif circuit.elsewhere is not None:
        circuit.elsewhere.slow(now, permit)
    elif permit.probe is not None:
        permit.probe.failed(now)
    elif route.opening is not None or permit.generation != circuit.generation:
        pass
    elif circuit.state is HALF_OPEN:
        circuit.fire(now, Signal.TRIAL_FAILED)
    elif circuit.state is LIMITING and permit.rank >= circuit.table.late_from:
        pass  # it waited in a queue of the application, as requests of all routes do
    # A route without enough samples may just be slow.
    elif circuit.state is not OPEN and route.baseline.samples >= constants.ROUTE_SAMPLES_MIN:
        route.outcomes.failed += 1
        if circuit.routes.fails_alone(route):
            circuit.open_route(now, route)


def _ceiling_lowered(circuit: Circuit, now: float) -> None:
    circuit.table.trial_at = now + constants.TRIAL_S
    circuit.failures.clear()  # the ceiling explains them
    circuit.set_cap()
    if circuit.state is CLOSED:
        circuit.fire(now, Signal.OVERLOADED)


def _judge(circuit: Circuit, now: float, route: Route) -> None:
    failures = circuit.failures
    if failures.refused_in_a_row >= constants.REFUSALS_IN_A_ROW:  # nothing listens there
        circuit.fire(now, Signal.FAILING)
    elif failures.fails_alone(route, circuit.routes, now):
        circuit.open_route(now, route)
    elif failures.many(circuit.settings):
        circuit.fire(now, Signal.FAILING)
