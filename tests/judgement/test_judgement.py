"""Several breakers, one judgement: who leads, what the others know, and what survives a death."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from retter.base.errors import Outcome
from retter.base.reason import Reason
from retter.breaker import (
    BreakerSettings,
    FairnessMode,
    Kind,
    Mode,
    Permit,
    Phase,
    Rejection,
    Signal,
    State,
    constants,
)
from retter.breaker.circuit import Circuit
from retter.breaker.fairness import Asker
from retter.judgement.breaker import SILENT_S
from retter.judgement.leader import Leader
from retter.judgement.memory import (
    NAME_BYTES,
    NAMES_MAX,
    TICKET_MARKS,
    Memory,
    bytes_needed,
)
from retter.judgement.names import Names, name_of
from retter.judgement.tickets import SharedTickets
from tests.support.compiled import replaces_parts
from tests.support.crew import TICK_S, Crew
from tests.support.work import instructions_of


def _failing(crew: Crew, index: int, count: int = 12) -> None:
    """Let requests of a worker fail until the circuit opens."""
    for _ in range(count):
        permit = crew.admit(index, Kind.OTHER, stored=None)
        assert isinstance(permit, Permit)
        crew.finish(index, permit, Outcome.OVERLOAD)
    crew.tick()
    crew.tick()


def test_the_lowest_worker_that_lives_leads() -> None:
    """And the next one from a second after its death on, or at once if the parent takes note."""
    crew = Crew(3)
    crew.settle()
    crew.kill(0, noticed=True)
    crew.settle()
    assert crew[1].breaker.leads
    crew.kill(1, noticed=False)
    crew.run(SILENT_S - 2 * TICK_S)
    assert not crew[2].breaker.leads
    crew.run(4 * TICK_S)
    assert crew[2].breaker.leads
    crew.begin(0)
    crew.settle()
    assert crew[0].breaker.leads


def test_a_leader_that_was_frozen_goes_on_from_what_was_learnt_meanwhile() -> None:
    """It does not publish its old figures."""
    crew = Crew(2)
    crew.settle()
    for _ in range(round(2 * SILENT_S / TICK_S)):
        crew.tick(1)
    assert crew[1].breaker.leads
    for _ in range(12):
        permit = crew.admit(1, Kind.OTHER, stored=None)
        assert isinstance(permit, Permit)
        crew.finish(1, permit, Outcome.OVERLOAD)
    assert crew[1].breaker.circuit.state is State.OPEN
    crew.settle()
    assert crew[0].breaker.leads
    assert crew.states() == {State.OPEN}


@replaces_parts
@pytest.mark.parametrize("how", ["begins", "was frozen"])
def test_nobody_follows_a_leader_before_it_has_published(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place still has the figures of before, which may be days old."""
    crew = Crew(2)
    crew.settle()
    if how == "begins":
        crew.kill(0, noticed=True)
    for _ in range(round(2 * SILENT_S / TICK_S)):
        crew.tick(1)
    assert crew[1].breaker.leads
    lived: list[bool] = []
    publish = Leader.publish

    def seen(self: Leader, circuit: Circuit, now: float) -> int:
        lived.append(crew.memory.lives(0, now, SILENT_S))
        return publish(self, circuit, now)

    monkeypatch.setattr(Leader, "publish", seen)
    if how == "begins":
        crew.begin(0)
    else:
        crew.tick(0)
    assert lived[0] is False
    assert crew.memory.lives(0, crew.now, SILENT_S) and crew[0].breaker.leads


def test_failures_seen_by_one_worker_open_the_circuit_of_all() -> None:
    """The leader learns from a ring, the others from its figures."""
    crew = Crew(3)
    crew.settle()
    _failing(crew, 2)
    assert crew.states() == {State.OPEN}
    for index in crew.alive:
        made = crew.admit(index)
        assert isinstance(made, Rejection)
        assert made.reason is Reason.OPEN
    assert [index for index, _ in crew.transitions] == [0], "the leader alone tells of it"
    assert crew.followed == [[], [State.OPEN], [State.OPEN]], "the others are told of the state"


@pytest.mark.parametrize("prober", [0, 1, 2])
def test_one_of_all_workers_sends_the_probe(prober: int) -> None:
    """A good answer to it, in whichever worker, lets all climb."""
    crew = Crew(3)
    crew.settle()
    _failing(crew, 1)
    crew.run(crew.settings.open_min_s)
    probe = crew.admit(prober)
    assert isinstance(probe, Permit)
    assert probe.reason is Reason.PROBE
    for index in crew.alive:
        assert isinstance(crew.admit(index), Rejection)
    crew.finish(prober, probe)
    crew.tick()
    crew.tick()
    assert crew.states() == {State.HALF_OPEN}


def test_a_probe_of_another_worker_that_fails_lets_all_wait_longer() -> None:
    """The next one comes after one and a half times the wait."""
    crew = Crew(2)
    crew.settle()
    _failing(crew, 0)
    crew.run(crew.settings.open_min_s)
    probe = crew.admit(1)
    assert isinstance(probe, Permit)
    crew.finish(1, probe, Outcome.OVERLOAD)
    crew.tick()
    crew.tick()
    waits = [crew[index].breaker.circuit.opening.wait_s for index in crew.alive]
    assert waits == [constants.WAIT_GROWTH * crew.settings.open_min_s] * 2


def test_an_open_route_is_probed_by_one_worker_a_wait() -> None:
    """The others know of it before it is their turn."""
    crew = Crew(3)
    crew.settle()
    for index in crew.alive:
        crew.serve(index, 12, route=b"GET /good")
        crew.serve(index, 12, route=b"GET /bad")
    for _ in range(12):
        for index in crew.alive:
            for route, outcome in ((b"GET /good", Outcome.OK), (b"GET /bad", Outcome.ERROR)):
                permit = crew.admit(index, route=route)
                if isinstance(permit, Permit):
                    crew.finish(index, permit, outcome)
        crew.tick()
    crew.settle()
    for index in crew.alive:
        made = crew.admit(index, route=b"GET /bad")
        assert made.reason is Reason.ROUTE_OPEN
        assert crew.admit(index, route=b"GET /good").reason is Reason.ADMITTED
    probes = []
    for _ in range(round(crew.settings.open_min_s / TICK_S) - 2):
        crew.tick()
        for index in reversed(crew.alive):
            made = crew.admit(index, route=b"GET /bad")
            if isinstance(made, Permit):
                assert made.reason is Reason.PROBE
                probes.append(index)
    assert len(probes) == 1


def test_an_old_probe_of_another_worker_changes_nothing() -> None:
    """It was sent before the circuit opened anew."""
    crew = Crew(2)
    crew.settle()
    _failing(crew, 0)
    crew.run(crew.settings.open_min_s)
    probe = crew.admit(1)
    assert isinstance(probe, Permit)
    crew[0].breaker.circuit.set_mode(crew.now, Mode.CLOSED)
    crew[0].breaker.circuit.set_mode(crew.now, Mode.OPEN)
    crew[0].breaker.circuit.set_mode(crew.now, Mode.AUTO)
    crew.tick()
    crew.finish(1, probe)
    crew.tick()
    assert State.HALF_OPEN not in crew.states()


def test_all_workers_together_stay_within_the_operators_limit() -> None:
    """Requests in flight in one worker are counted by the others at once, without a tick."""
    crew = Crew(2, BreakerSettings(max_in_flight=5, limit_start=5))
    crew.settle()
    for number in range(12):
        crew.admit(number % 2, key=b"%d" % number)
    assert sum(len(crew[index].in_flight) for index in crew.alive) == 5
    crew.tick()
    crew.tick()
    assert crew.states() == {State.LIMITING}


def test_a_killed_worker_leaks_no_permit() -> None:
    """Whether its parent takes note or it only falls silent; and its successor begins at zero."""
    crew = Crew(3)
    crew.settle()
    for number in range(6):
        crew.admit(number % 3, Kind.OTHER, b"%d" % number, stored=None)
    assert crew[0].breaker.circuit.limit.in_flight >= 4
    crew.kill(2)
    crew.tick()
    assert crew[0].breaker.circuit.limit.in_flight == 4
    crew.kill(1, noticed=False)
    crew.tick()
    assert crew[0].breaker.circuit.limit.in_flight == 4, "it may be held up for a moment"
    crew.run(SILENT_S + TICK_S)
    assert crew[0].breaker.circuit.limit.in_flight == 2
    crew.begin(1)
    crew.begin(2)
    crew.settle()
    assert crew[1].breaker.circuit.limit.in_flight == 2
    crew.check()


def test_what_was_learnt_outlives_the_leader() -> None:
    """The successor knows the routes' service times, also of those that only others have met."""
    crew = Crew(2)
    crew.settle()
    crew.serve(0, 20, 0.1, route=b"GET /of/leader")
    crew.serve(1, 20, 0.2, route=b"GET /of/other")
    crew.run(1.0)
    before = crew.leader.circuit
    crew.kill(0)
    crew.run(0.2)
    after = crew[1].breaker.circuit
    assert crew[1].breaker.leads
    assert after.baseline.mean_s == pytest.approx(before.baseline.mean_s)
    assert after.generation == before.generation
    known = {route.name: route.baseline.mean_s for route in after.routes}
    assert known[b"GET /of/leader"] == pytest.approx(0.1)
    assert known[b"GET /of/other"] == pytest.approx(0.2)
    begun = crew.begin(0).breaker
    assert begun.leads
    again = {route.name: route.baseline.samples for route in begun.circuit.routes}
    assert again == {route.name: route.baseline.samples for route in before.routes}


def test_events_that_a_dead_leader_left_unread_are_read_by_the_next() -> None:
    """And none of them twice."""
    crew = Crew(2)
    crew.settle()
    crew.serve(1, 3)
    crew.kill(0)
    for _ in range(4):
        permit = crew.admit(1, Kind.OTHER, stored=None)
        assert isinstance(permit, Permit)
        crew.finish(1, permit, Outcome.ERROR)
    crew.tick()
    assert crew[1].breaker.leads
    recent = crew[1].breaker.circuit.failures.recent
    assert (recent.passed, recent.failed) == (3, 4)


def test_a_worker_that_begins_decides_by_the_figures_at_once() -> None:
    """Not only after its first tick."""
    crew = Crew(2)
    crew.settle()
    _failing(crew, 0)
    crew.kill(1)
    crew.begin(1)
    assert crew[1].breaker.circuit.state is State.OPEN


def test_an_order_to_one_worker_is_obeyed_by_all() -> None:
    """Also by one that begins later; the newest order counts."""
    crew = Crew(3)
    crew.settle()
    crew[2].breaker.circuit.set_mode(crew.now, Mode.OPEN)
    crew[2].breaker.circuit.forced_until = crew.now + 600
    crew.settle()
    assert crew.states() == {State.OPEN}
    assert {crew[index].breaker.circuit.mode for index in crew.alive} == {Mode.OPEN}
    told = [(index, transition.cause) for index, transition in crew.transitions]
    assert told == [(0, Signal.FORCED_OPEN)], "the leader alone tells of it"
    assert crew.followed == [[], [State.OPEN], [State.OPEN]], "the others are told of the state"
    crew.kill(1)
    begun = crew.begin(1).breaker.circuit
    assert begun.mode is Mode.OPEN
    assert begun.forced_until == crew[2].breaker.circuit.forced_until, "and ends it in time"
    crew[1].breaker.circuit.set_mode(crew.now, Mode.AUTO)
    crew.settle()
    assert {crew[index].breaker.circuit.mode for index in crew.alive} == {Mode.AUTO}
    assert len(crew.states()) == 1


def test_a_pause_holds_the_requests_of_all_workers() -> None:
    """Until somebody resumes, in whichever worker."""
    crew = Crew(2)
    crew.settle()
    crew[1].breaker.circuit.pause(crew.now, crew.now + 20)
    crew.settle()
    made = crew.admit(0)
    assert isinstance(made, Rejection)
    assert made.reason is Reason.PAUSED
    crew[0].breaker.circuit.resume(crew.now)
    crew.settle()
    assert isinstance(crew.admit(1), Permit)


def test_a_pause_that_ends_by_itself_is_no_order() -> None:
    """A worker whose clock runs a little later does not end a pause that was begun meanwhile."""
    crew = Crew(2)
    crew.settle()
    crew[0].breaker.circuit.pause(crew.now, crew.now + 3 * TICK_S)
    crew.run(3 * TICK_S)
    crew[0].breaker.circuit.pause(crew.now, crew.now + 20)
    crew.run(0.5)
    assert all(crew[index].breaker.circuit.paused_until for index in crew.alive)


def test_a_stall_is_seen_though_each_worker_has_only_one_request_that_hangs() -> None:
    """The third-oldest of all is what tells."""
    crew = Crew(3)
    crew.settle()
    for index in range(3):
        crew.serve(index, 12)
    for index in range(3):
        crew.admit(index, key=b"%d" % index)
    crew.run(3.0)
    assert crew[0].breaker.circuit.pulse.hung
    assert crew.states() == {State.LIMITING}


def test_who_waits_elsewhere_counts_for_the_expected_wait() -> None:
    """So the workers' lines together are no longer than one alone would be."""
    crew = Crew(2, BreakerSettings(max_in_flight=1, limit_start=1))
    crew.settle()
    crew.admit(0, Kind.OTHER, stored=None)
    crew.tick()
    crew.admit(0, stored=None)
    crew.tick()
    room = crew[1].breaker.circuit.room
    crew.admit(1, stored=None)
    assert room.ahead(1, has_stored=False) == 2
    assert crew[1].breaker.circuit.waiting == 2


def _fair_crew() -> Crew:
    crew = Crew(2, BreakerSettings(max_in_flight=1, limit_start=1, fairness=FairnessMode.ON))
    crew.settle()
    crew.admit(0, Kind.OTHER, stored=None)
    crew.admit(0, stored=1.0)
    crew.tick()
    crew.tick()
    assert crew.states() == {State.LIMITING}
    return crew


def test_a_crawler_takes_no_place_while_a_visitor_waits_in_another_worker() -> None:
    """The visitor's worker takes it on its next look."""
    crew = _fair_crew()
    (busy,) = crew[0].in_flight
    visitor = crew.admit(1, key=b"v", stored=None, asker=Asker(7))
    crawler = crew.admit(0, key=b"c", stored=None, asker=Asker(8, crawler="bot"))
    assert isinstance(visitor, Permit)
    assert isinstance(crawler, Permit)
    crew.finish(0, busy)
    (stranger,) = crew[0].in_flight
    crew.finish(0, stranger)
    assert crawler.phase is Phase.QUEUED
    crew.start_ready(1)
    assert visitor.phase is Phase.IN_FLIGHT
    crew.finish(1, visitor)
    crew.start_ready(0)
    assert crawler.phase is Phase.IN_FLIGHT


def test_a_ticket_is_good_for_one_place_in_all_workers() -> None:
    """It may be given by one, shown to another and used in a third; then it is worth nothing."""
    crew = Crew(3, BreakerSettings(fairness=FairnessMode.ON))
    tickets = []
    for index in crew.alive:
        fairness = crew[index].breaker.circuit.fairness
        assert fairness is not None
        tickets.append(fairness.tickets)
    text = tickets[0].issue(7, crew.now)
    ticket = tickets[1].read(text, 7, crew.now)
    assert ticket is not None
    assert [one.read(text, 7, crew.now) for one in tickets] == [ticket] * 3
    assert [one.read(text, 8, crew.now) for one in tickets] == [None] * 3
    assert tickets[1].stand(ticket.number)
    assert tickets[2].stands(ticket.number)
    assert not tickets[2].stand(ticket.number)
    tickets[1].leave(ticket.number)
    assert tickets[2].stand(ticket.number)
    tickets[2].spend(ticket.number)
    assert all(one.read(text, 7, crew.now) is None for one in tickets)
    assert not any(one.stand(ticket.number) for one in tickets)


class Interrupted(bytearray):
    """The marks of a worker. Another worker acts just before or just after this one writes."""

    act: Callable[[], object] | None = None
    after = False

    def __setitem__(self, at: Any, mark: Any) -> None:
        act, self.act = self.act, None
        if self.after:
            super().__setitem__(at, mark)
        if act is not None:
            act()
        if not self.after:
            super().__setitem__(at, mark)


@replaces_parts
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("first", ["claim", "stand"])
@pytest.mark.parametrize("second", ["claim", "stand"])
def test_two_workers_do_not_use_a_ticket_that_they_get_at_the_same_moment(
    first: str, second: str, *, after: bool
) -> None:
    crew = Crew(2, BreakerSettings(fairness=FairnessMode.ON))
    one, other = (SharedTickets(bytes(16), crew.memory, index) for index in (0, 1))
    read = one.read(one.issue(7, crew.now), 7, crew.now)
    assert read is not None
    took: list[bool] = []
    marks = Interrupted(one._own)
    marks.after = after
    marks.act = lambda: took.append(getattr(other, second)(read.number))
    own: Any = marks
    one._own = own
    one._marks[0] = other._marks[0] = own
    other._others = [own]
    took.append(getattr(one, first)(read.number))
    assert took == [not after, after]  # first of the one in between
    (one if after else other).spend(read.number)
    assert one.read(one._ticket(read.number, 7, read.since), 7, crew.now) is None


@pytest.mark.parametrize("begins", [0, 1])
def test_a_ticket_that_got_neither_a_place_nor_a_wait_may_be_used_again(begins: int) -> None:
    crew = Crew(2, BreakerSettings(fairness=FairnessMode.ON))
    tickets = [SharedTickets(bytes(16), crew.memory, index) for index in (0, 1)]
    one, other = tickets[begins], tickets[1 - begins]
    read = one.read(one.issue(7, crew.now), 7, crew.now)
    assert read is not None
    number = read.number
    assert one.claim(number)
    assert not other.claim(number) and not other.stand(number)
    one.settle()
    assert other.claim(number) and other.stand(number)
    other.settle()  # it stands in the queue: that lasts
    assert not one.claim(number)
    other.leave(number)
    assert one.claim(number)
    one.spend(number)
    one.settle()  # and so does its use
    assert not one.claim(number) and not other.claim(number)


@pytest.mark.parametrize("stored_age_s", [None, 5.0])
def test_a_request_that_is_shed_gives_its_ticket_back(stored_age_s: float | None) -> None:
    crew = Crew(2, BreakerSettings(fairness=FairnessMode.ON, queue_max=0))
    crew.settle()
    _failing(crew, 0)
    assert crew.states() == {State.OPEN}
    breakers = [crew[index].breaker for index in crew.alive]
    settled: list[int] = []
    for breaker in breakers:
        fairness = breaker.circuit.fairness
        assert fairness is not None and isinstance(fairness.tickets, SharedTickets)
        tickets = fairness.tickets
        text = tickets.issue(7, crew.now)
        read = tickets.read(text, 7, crew.now)
        assert read is not None
        asker = Asker(7, ticket=text)
        made = breaker.admit(crew.now, Kind.GET, b"/", b"/", stored_age_s, 7, asker)
        assert isinstance(made, Rejection)
        settled.append(tickets._claimed)
        assert not tickets.stands(read.number)
    assert settled == [-1, -1]


def test_each_worker_issues_numbers_of_its_own() -> None:
    """Also after a restart."""
    crew = Crew(2, BreakerSettings(fairness=FairnessMode.ON))
    numbers = []
    for _ in range(3):
        for index in crew.alive:
            fairness = crew[index].breaker.circuit.fairness
            assert fairness is not None
            ticket = fairness.tickets.read(fairness.tickets.issue(1, 100.0), 1, 100.0)
            assert ticket is not None
            numbers.append(ticket.number)
        crew.kill(1)
        crew.begin(1)
    assert len(set(numbers)) == len(numbers)


def test_a_ticket_in_the_line_of_a_dead_worker_may_be_shown_again() -> None:
    """A used one stays used."""
    crew = Crew(2, BreakerSettings(fairness=FairnessMode.ON))
    fairness = crew[0].breaker.circuit.fairness
    its = crew[1].breaker.circuit.fairness
    assert fairness is not None
    assert its is not None
    texts = [fairness.tickets.issue(7, crew.now) for _ in range(2)]
    stood, used = (fairness.tickets.read(text, 7, crew.now) for text in texts)
    assert stood is not None
    assert used is not None
    its.tickets.stand(stood.number)
    its.tickets.spend(used.number)
    crew.kill(1)
    crew.begin(1)
    assert fairness.tickets.stand(stood.number)
    assert fairness.tickets.read(texts[1], 7, crew.now) is None
    assert used.number < TICKET_MARKS


def test_more_events_than_the_ring_holds_are_counted_by_their_number() -> None:
    """The leader was held up; the share of failures is still what it was."""
    crew = Crew(2)
    crew.settle()
    for number in range(3000):
        permit = crew.admit(1, Kind.OTHER, stored=None)
        assert isinstance(permit, Permit)
        outcome = Outcome.ERROR if number % 30 == 0 else Outcome.OK
        crew[1].breaker.finished(crew.now, permit, outcome)
        crew[1].in_flight.remove(permit)
    crew.tick(0)
    recent = crew[0].breaker.circuit.failures.recent
    assert (recent.passed, recent.failed) == (2900, 100)


def test_a_late_answer_of_another_worker_is_counted_where_it_was_served() -> None:
    """Its latency is in that worker's histogram alone, as metrics add them up."""
    crew = Crew(2)
    crew.settle()
    crew.serve(1, 3)
    crew.tick()
    latencies = [sum(crew[index].breaker.latency().counts) for index in crew.alive]
    assert latencies == [0, 3]
    assert crew[0].breaker.circuit.failures.recent.passed == 3


def test_the_cold_start_counts_the_answers_of_all() -> None:
    """Whoever gets them: the mean service time is Little's, over all workers."""
    crew = Crew(2)
    crew.settle()
    crew.serve(1, constants.COLD_SAMPLES + 2, 0.1)
    for index in crew.alive:
        baseline = crew[index].breaker.circuit.baseline
        assert baseline.cold is None
        assert baseline.mean_s == pytest.approx(0.1)


def test_nothing_but_the_sum_is_paid_for_a_request_while_all_is_calm() -> None:
    """A worker beside another one looks at three words and writes one; events come on top."""

    def one(workers: int, index: int) -> int:
        crew = Crew(workers)
        crew.settle()
        crew.serve(index, 40)
        breaker = crew[index].breaker

        def request() -> None:
            permit = breaker.start_at_once(crew.now, Kind.GET, b"GET /", b"k", True, 0)
            assert permit is not None
            breaker.finished(crew.now + 0.05, permit, Outcome.OK)
            breaker.settle()  # learning is a part of the price

        request()
        return instructions_of(request)

    leads, follows, of_eight = one(2, 0), one(2, 1), one(8, 1)
    assert of_eight - follows < 6 * 12, "each further worker is one look"
    assert follows < leads + 60


@pytest.mark.parametrize("index", [0, 1])
def test_the_short_way_of_a_usual_request_counts_for_all_workers(index: int) -> None:
    """For the one that leads, and for the one that follows."""
    crew = Crew(2)
    crew.settle()
    crew.serve(index, 40)
    breaker, other = crew[index].breaker, crew[1 - index].breaker
    passed = breaker.latency().counts
    for number in range(3):
        permit = breaker.start_at_once(crew.now, Kind.GET, b"GET /", b"k", True, 1)
        assert permit is not None
        other.would(crew.now, Kind.GET, b"GET /", b"k", 1.0)
        assert other.circuit.limit.in_flight == 1
        breaker.finished_whole(crew.now, permit)
        other.would(crew.now, Kind.GET, b"GET /", b"k", 1.0)
        assert other.circuit.limit.in_flight == 0
        assert sum(breaker.latency().counts) == sum(passed) + number + 1


def test_the_ceiling_is_infinite_until_somebody_finds_one() -> None:
    """Everywhere."""
    crew = Crew(2)
    crew.settle()
    assert {crew[index].breaker.circuit.table.ceiling for index in crew.alive} == {inf}


def test_one_of_all_workers_asks_by_itself_if_no_visitor_comes() -> None:
    """Whichever tries first; and to ask what would happen changes nothing."""
    crew = Crew(2)
    crew.settle()
    _failing(crew, 0)
    would = crew[1].breaker.would(crew.now, Kind.GET, b"GET /", b"k", 1.0)
    assert isinstance(would, Rejection)
    assert would.reason is Reason.OPEN
    crew.run(crew.settings.open_min_s + constants.NOBODY_CAME_S)
    would = crew[1].breaker.would(crew.now, Kind.GET, b"GET /", b"k", 1.0)
    assert would.reason is Reason.PROBE
    permit = crew[1].breaker.probe(crew.now, b"GET /", b"k")
    assert permit is not None
    assert permit.reason is Reason.PROBE
    assert crew[0].breaker.probe(crew.now, b"GET /", b"k") is None


def test_a_get_that_outlives_its_patience_in_another_worker_counts_for_its_route() -> None:
    """At once, not when it ends."""
    crew = Crew(2)
    crew.settle()
    crew.serve(1, 12, route=b"GET /slow")
    crew.admit(1, route=b"GET /slow")
    crew.run(crew.settings.patience_min_s + 3 * TICK_S)
    (route,) = crew[0].breaker.circuit.routes
    assert route.name == b"GET /slow"
    assert route.outcomes.failed == 1


def test_a_get_without_a_place_in_another_worker_limits_all() -> None:
    """The leader may have had none itself."""
    crew = Crew(2, BreakerSettings(max_in_flight=1, limit_start=1))
    crew.settle()
    crew.admit(1, Kind.OTHER, stored=None)
    made = crew.admit(1, key=b"other")
    assert isinstance(made, Permit)
    assert made.phase is Phase.QUEUED
    crew.tick()
    crew.tick()
    assert crew.states() == {State.LIMITING}


def test_a_route_whose_name_nobody_has_written_is_one_of_the_others() -> None:
    """A name that is too long is not written; and the oldest name gives way."""
    memory = Memory(bytearray(bytes_needed(1)), 1)
    names = Names(memory, 0)
    names.write(1, b"x" * 200)
    assert name_of(memory, 1) is None
    for number in range(2, NAMES_MAX + 3):
        names.write(number, b"GET /%d" % number)
    assert name_of(memory, 2) is None
    assert name_of(memory, 3) == b"GET /3"
    memory.octets[memory.slots[0].names_at + NAME_BYTES + 18] ^= 1
    assert name_of(memory, 3) is None, "half written"
