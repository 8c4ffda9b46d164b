"""Figures of a run. Each takes the answers to requests that arrived in [begin, end)."""

from collections.abc import Callable, Iterable

from benchmarks.simulation.run import Answer, Run

Measure = Callable[[Run], float]
IN_TIME_S = 3.0  # a fresh answer that comes later is of no use to anyone


def _of(run: Run, begin: float, end: float) -> Iterable[Answer]:
    return (answer for answer in run.answers if begin <= answer.arrived_at < end)


def quantile(values: list[float], share: float) -> float:
    """Return the value that `share` of all do not exceed; 0 for none."""
    if not values:
        return 0.0
    values.sort()
    return values[min(len(values) - 1, int(share * len(values)))]


def goodput(begin: float, end: float, capacity_share: float = 1.0) -> Measure:
    """Fresh answers in time, in per cent of what the application can do."""

    def measure(run: Run) -> float:
        good = sum(
            answer.how == "fresh" and answer.took_s <= IN_TIME_S for answer in _of(run, begin, end)
        )
        return 100 * good / (run.model.capacity * capacity_share * (end - begin))

    return measure


def pool_goodput(begin: float, end: float) -> Measure:
    """Fresh answers in time, in per cent of what the pool can do while it changes."""

    def measure(run: Run) -> float:
        good = sum(
            answer.how == "fresh" and answer.took_s <= IN_TIME_S for answer in _of(run, begin, end)
        )
        steps = 1000
        step_s = (end - begin) / steps
        could = sum(step_s * run.model.capacity_at(begin + n * step_s) for n in range(steps))
        return 100 * good / could

    return measure


def transitions(begin: float, end: float, cause: str = "") -> Measure:
    """Changes of state, of one cause if it is given."""
    return lambda run: sum(
        begin <= at < end and cause in ("", why) for at, _, why in run.transitions
    )


def first_cause(begin: float, cause: str) -> Measure:
    """1 if that is the cause of the first change of state since then."""

    def measure(run: Run) -> float:
        causes = [why for at, _, why in run.transitions if at >= begin]
        return float(bool(causes) and causes[0] == cause)

    return measure


def closed_after(begin: float) -> Measure:
    """Seconds until the circuit is CLOSED and stays so."""

    def measure(run: Run) -> float:
        states = [(sample.at, sample.state) for sample in run.samples if sample.at >= begin]
        not_closed = [at for at, state in states if state != "CLOSED"]
        if states[-1][1] != "CLOSED":
            return 999.0
        return not_closed[-1] - begin if not_closed else 0.0

    return measure


def ceiling_between(begin: float, end: float, lowest: float, highest: float) -> Measure:
    """Time for which the ceiling lies within these bounds, in per cent."""

    def measure(run: Run) -> float:
        good = [
            lowest <= sample.ceiling <= highest
            for sample in run.samples
            if begin <= sample.at < end
        ]
        return 100 * sum(good) / len(good)

    return measure


def burst_answered(alone: int) -> Measure:
    """GETs of the burst answered, in per cent of those that the application alone answers in time.

    Those that came last are the ones that it would not have.
    """

    def measure(run: Run) -> float:
        moments = [answer.arrived_at for answer in run.answers]
        at = max(set(moments), key=moments.count)
        good = sum(a.how == "fresh" for a in run.answers if a.arrived_at == at)
        return 100 * min(good, alone) / alone

    return measure


def stored_by_failures(begin: float, end: float) -> Measure:
    """GETs answered from the store, as a multiple of those that failed."""

    def measure(run: Run) -> float:
        stored = sum(answer.how == "stored" for answer in _of(run, begin, end))
        return stored / max(1, sum(begin <= at < end + 1 for at in run.failed_gets))

    return measure


def workers_idle(begin: float, end: float) -> Measure:
    """Time that the workers had nothing to do, in per cent."""

    def measure(run: Run) -> float:
        spent = [sample.busy_s for sample in run.samples if begin <= sample.at < end]
        busy = (spent[-1] - spent[0]) / (run.model.workers * (end - begin))
        return 100 * (1 - busy)

    return measure


def latency(begin: float, end: float, share: float, *, is_get: bool = True) -> Measure:
    """Quantile of the latency in seconds; share 1 is the longest."""

    def measure(run: Run) -> float:
        took = [answer.took_s for answer in _of(run, begin, end) if answer.is_get is is_get]
        return quantile(took, share)

    return measure


def stale_share(begin: float, end: float, route: bytes | None = None) -> Measure:
    """GETs answered from the store, in per cent."""

    def measure(run: Run) -> float:
        gets = [
            answer.how == "stored"
            for answer in _of(run, begin, end)
            if answer.is_get and (route is None or answer.route == route)
        ]
        return 100 * sum(gets) / max(1, len(gets))

    return measure


def fresh_share_without(route: bytes, begin: float, end: float) -> Measure:
    """GETs of the other routes that got a fresh answer in time, in per cent."""

    def measure(run: Run) -> float:
        gets = [
            answer.how == "fresh" and answer.took_s <= IN_TIME_S
            for answer in _of(run, begin, end)
            if answer.is_get and answer.route != route
        ]
        return 100 * sum(gets) / max(1, len(gets))

    return measure


def fresh_of_possible(begin: float, end: float) -> Measure:
    """GETs that got a fresh answer in time, in per cent of those that could.

    No more could than asked, and than the workers do that other methods leave free.
    """

    def measure(run: Run) -> float:
        gets = [answer for answer in _of(run, begin, end) if answer.is_get]
        good = sum(answer.how == "fresh" and answer.took_s <= IN_TIME_S for answer in gets)
        rate, workers = len(gets) / (end - begin), run.model.workers
        free = [
            workers - sample.busy_with_others for sample in run.samples if begin <= sample.at < end
        ]
        could = [min(rate, run.model.capacity * one / workers) for one in free]
        return 100 * good / (sum(could) / len(could) * (end - begin))

    return measure


def get_errors(begin: float, end: float) -> Measure:
    """GETs answered 5xx."""
    return lambda run: sum(a.how == "error" and a.is_get for a in _of(run, begin, end))


def post_ok(begin: float, end: float) -> Measure:
    """Other methods that were answered well, in per cent."""

    def measure(run: Run) -> float:
        posts = [answer.how == "fresh" for answer in _of(run, begin, end) if not answer.is_get]
        return 100 * sum(posts) / max(1, len(posts))

    return measure


def peak_in_flight(begin: float, end: float) -> Measure:
    """The most that were in flight, as a multiple of the workers."""

    def measure(run: Run) -> float:
        most = max((count for at, count in run.peaks if begin <= at < end), default=0)
        return most / run.model.workers

    return measure


def usual_peak(begin: float, end: float) -> Measure:
    """In flight at 99.9 per cent of the starts: the highest of all is chance."""

    def measure(run: Run) -> float:
        return quantile([float(count) for at, count in run.peaks if begin <= at < end], 0.999)

    return measure


def first_stored_after(begin: float) -> Measure:
    """Seconds until the first client was helped by the store."""

    def measure(run: Run) -> float:
        return min(
            (
                answer.arrived_at + answer.took_s - begin
                for answer in run.answers
                if answer.how == "stored" and answer.arrived_at + answer.took_s >= begin
            ),
            default=99.0,
        )

    return measure


def fresh_after(end: float, calm_s: float = 2.0) -> Measure:
    """Seconds after the trouble until `calm_s` passed with all GETs fresh and in time."""

    def measure(run: Run) -> float:
        gets = sorted(
            (answer for answer in run.answers if answer.is_get and answer.arrived_at >= end),
            key=lambda answer: answer.arrived_at,
        )
        calm_since = end
        for answer in gets:
            if answer.arrived_at - calm_since >= calm_s:
                break
            if answer.how != "fresh" or answer.took_s > IN_TIME_S:
                calm_since = answer.arrived_at
        else:
            return 99.0
        return calm_since - end

    return measure


def upstream_gets_a_second(begin: float, end: float) -> Measure:
    """GETs that the application saw, a second."""
    return lambda run: sum(begin <= at < end for at in run.upstream_gets) / (end - begin)


def time_not_closed(begin: float, end: float) -> Measure:
    """Per cent of the ticks at which the circuit was not CLOSED."""

    def measure(run: Run) -> float:
        states = [sample.state != "CLOSED" for sample in run.samples if begin <= sample.at < end]
        return 100 * sum(states) / max(1, len(states))

    return measure


def without_stored_longest(begin: float, end: float) -> Measure:
    """The longest that a GET waited which ended fresh or with 503 (share of none stored)."""

    def measure(run: Run) -> float:
        return max(
            (a.took_s for a in _of(run, begin, end) if a.is_get and a.how != "stored"), default=0.0
        )

    return measure


def answered_fresh(begin: float, end: float) -> Measure:
    """GETs that could not be answered from the store and were answered well, in per cent."""

    def measure(run: Run) -> float:
        fresh = errors = 0
        for answer in _of(run, begin, end):
            if answer.is_get and answer.without_stored:
                fresh += answer.how == "fresh"
                errors += answer.how == "error"
        return 100 * fresh / max(1, fresh + errors)

    return measure


def refreshed(begin: float, end: float) -> Measure:
    """Age in seconds of the stored answers, at 99 per cent of them."""

    def measure(run: Run) -> float:
        ages = [answer.age_s for answer in _of(run, begin, end) if answer.how == "stored"]
        return quantile(ages, 0.99)

    return measure


def bad_errors(begin: float, end: float) -> Measure:
    """GETs whose error was not our own 503 with Retry-After."""
    return lambda run: sum(
        a.how == "error" and a.is_get and a.status != 503 for a in _of(run, begin, end)
    )


def leaked(run: Run) -> float:
    """Requests that the controller still counts when all is over."""
    return run.leaked


def ratio(above: Measure, below: Measure) -> Measure:
    """One figure in per cent of another."""
    return lambda run: 100 * above(run) / max(1e-9, below(run))


# --- who: visitors, an office, a crawler ---


def _gets_of(run: Run, who: str, begin: float, end: float) -> list[Answer]:
    return [answer for answer in _of(run, begin, end) if answer.is_get and answer.who == who]


def share_of(who: str, how: str, begin: float, end: float) -> Measure:
    """Their GETs that were answered so, in per cent; those who came again count once."""

    def measure(run: Run) -> float:
        gets = _gets_of(run, who, begin, end)
        return 100 * sum(answer.how == how for answer in gets) / max(1, len(gets))

    return measure


def without_stored_answered(who: str, begin: float, end: float) -> Measure:
    """Their GETs for pages that are never stored, answered by the application, in per cent."""

    def measure(run: Run) -> float:
        gets = [answer for answer in _gets_of(run, who, begin, end) if answer.without_stored]
        return 100 * sum(answer.how == "fresh" for answer in gets) / max(1, len(gets))

    return measure


def without_stored_took(who: str, begin: float, end: float, share: float) -> Measure:
    """Seconds from the first try until such a page was there: a quantile."""
    return lambda run: quantile(
        [answer.took_s for answer in _gets_of(run, who, begin, end) if answer.without_stored], share
    )


def needless_errors(who: str, begin: float, end: float) -> Measure:
    """Their errors where a stored response was there."""
    return lambda run: sum(
        answer.how == "error" and not answer.without_stored
        for answer in _gets_of(run, who, begin, end)
    )


def share_of_capacity(who: str, begin: float, end: float) -> Measure:
    """Their fresh answers, in per cent of what the application can do."""

    def measure(run: Run) -> float:
        fresh = sum(answer.how == "fresh" for answer in _gets_of(run, who, begin, end))
        return 100 * fresh / (run.model.capacity * (end - begin))

    return measure


def difference(one: Measure, other: Measure) -> Measure:
    """By how much one figure is above another."""
    return lambda run: one(run) - other(run)
