"""A breaker that goes on in another process, and two that share one application."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.errors import Outcome
from retter.breaker import (
    Asker,
    BreakerSettings,
    CircuitBreaker,
    FairnessMode,
    Kind,
    Mode,
    State,
    sweep,
)
from retter.breaker.circuit import Circuit
from retter.breaker.opening import Opening
from retter.breaker.permit import KNOWN, STRANGER, Permit
from retter.breaker.states import Signal
from retter.continuity.handover import (
    TICKETS_LEFT,
    demand_of,
    go_on,
    restore_demand,
    spent_of,
    state_of,
)
from retter.continuity.shared import Shared
from tests.continuity.test_learnt import JSON, taught

NOW = 100.0
SECRET = b"secret of both!!"


def a_breaker(**settings: Any) -> CircuitBreaker:
    wanted = BreakerSettings(fairness=FairnessMode.ON, **settings)
    return CircuitBreaker(wanted, NOW, secret=SECRET)


def breaker(**settings: Any) -> Circuit:
    return a_breaker(**settings).circuit


def continued(before: Circuit, **settings: Any) -> Circuit:
    """Return a breaker of another process that goes on."""
    after = breaker(**settings)
    said = json.loads(json.dumps(state_of(before)))
    assert go_on(after, said, demand_of(before), spent_of(before), NOW)
    return after


def open_circuit(one: Circuit) -> None:
    one.fire(NOW, Signal.FAILING)
    assert one.state is State.OPEN


def told(giver: Shared, taker: Shared) -> None:
    taker.take(json.loads(json.dumps(giver.report())), NOW)


def start(one: CircuitBreaker, count: int) -> list[Permit]:
    permits: list[Permit] = []
    for _ in range(count):
        permit = one.admit(NOW, Kind.GET, b"GET /", b"key", None)
        assert isinstance(permit, Permit)
        one.started(NOW, permit)
        permits.append(permit)
    return permits


def test_what_was_learnt_goes_on() -> None:
    before = taught()
    after = continued(before)
    assert after.limit.limit == before.limit.limit
    assert after.table.ceiling == before.table.ceiling
    assert after.state is State.CLOSED


def test_an_open_circuit_stays_open_with_its_waits() -> None:
    before = breaker()
    open_circuit(before)
    before.opening.send(NOW)
    before.opening.failed(NOW + 1)
    after = continued(before)
    assert after.state is State.OPEN
    assert after.opening.probe_at == before.opening.probe_at > NOW + 2
    assert after.cap == before.cap == 0


def test_a_pause_goes_on() -> None:
    before = breaker()
    before.pause(NOW, NOW + 30)
    after = continued(before)
    assert after.paused_until == NOW + 30
    assert not after.calm
    sweep.tick(after, NOW + 31)
    assert after.paused_until is None


@pytest.mark.parametrize(("mode", "state"), [(Mode.OPEN, State.OPEN), (Mode.OBSERVE, State.CLOSED)])
def test_a_forced_mode_goes_on(mode: Mode, state: State) -> None:
    before = breaker()
    before.set_mode(NOW, mode)
    after = continued(before)
    assert (after.mode, after.state) == (mode, state)
    after.set_mode(NOW, Mode.AUTO)
    assert after.mode is Mode.AUTO


def test_a_mode_in_new_settings_holds() -> None:
    before = breaker()
    open_circuit(before)
    assert continued(before, mode=Mode.CLOSED).mode is Mode.CLOSED
    before.set_mode(NOW, Mode.OPEN)  # but an operator's word holds against settings
    assert continued(before, mode=Mode.CLOSED).mode is Mode.OPEN


def test_an_open_route_stays_open() -> None:
    before = breaker()
    before.routes.get(b"GET /slow", NOW).opening = Opening(NOW, 3.0, 9.0)
    route = continued(before).routes.get(b"GET /slow", NOW)
    assert route.opening is not None and route.opening.probe_at == NOW + 3.0


def test_who_has_asked_for_how_much_is_known() -> None:
    before = breaker()
    assert before.fairness is not None
    for client in (1, 2, 2, 3):
        before.fairness.demand.note(client, 0.5, NOW)
    before.fairness.demand.gave(2, 0.25, NOW)
    before.fairness._share_s, before.fairness._light_s = 0.75, 0.0
    after = continued(before)
    assert after.fairness is not None
    assert after.fairness.demand.heaviest(3, NOW) == before.fairness.demand.heaviest(3, NOW)
    assert after.fairness.demand.given(NOW) == 0.25
    assert after.fairness.demand.name_of(2) == ""
    after.fairness.demand.call(2, "examplebot")  # as with its next request
    assert after.fairness.demand.name_of(2) == "examplebot"
    assert after.fairness.is_heavy(2, NOW) and not after.fairness.is_heavy(1, NOW)
    after.fairness.demand.note(4, 1.0, NOW)
    assert after.fairness.demand.demand_of(4, NOW) == 1.0


def test_tickets_are_good_once_in_both_processes() -> None:
    before = breaker()
    assert before.fairness is not None
    spent, kept = [before.fairness.ticket_for(Asker(7), NOW)[0] for _ in range(2)]
    before.fairness.tickets.spend(0)
    after = continued(before)
    assert after.fairness is not None
    assert after.fairness.place_of(Asker(7, ticket=spent), NOW).lane == STRANGER
    assert after.fairness.place_of(Asker(7, ticket=kept), NOW).lane == KNOWN
    # What either issues from here on is another number.
    late, _ = before.fairness.ticket_for(Asker(8), NOW)
    new, _ = after.fairness.ticket_for(Asker(8), NOW)
    numbers = [after.fairness.place_of(Asker(8, ticket=one), NOW).ticket for one in (late, new)]
    assert numbers == [2, 2 + TICKETS_LEFT]


def test_a_ticket_that_is_used_up_in_one_is_so_in_the_other() -> None:
    before = breaker()
    assert before.fairness is not None
    tickets = [before.fairness.ticket_for(Asker(7), NOW)[0] for _ in range(4)]
    before.fairness.tickets.stand(0)
    after = continued(before)
    assert after.fairness is not None
    old, new = Shared(before, comes=False), Shared(after, comes=True)

    def lanes(one: Circuit) -> list[int]:
        assert one.fairness is not None
        return [one.fairness.place_of(Asker(7, ticket=ticket), NOW).lane for ticket in tickets]

    assert lanes(after) == [STRANGER, KNOWN, KNOWN, KNOWN], "the first stands in the old line"
    before.fairness.tickets.leave(0)
    before.fairness.tickets.spend(1)
    after.fairness.tickets.spend(2)
    after.fairness.tickets.stand(3)
    told(old, new)
    told(new, old)
    assert lanes(after) == [KNOWN, STRANGER, STRANGER, STRANGER]
    assert lanes(before) == [KNOWN, STRANGER, STRANGER, STRANGER]
    after.fairness.tickets.leave(3)
    told(new, old)
    assert lanes(before) == [KNOWN, STRANGER, STRANGER, KNOWN]


def test_together_they_stay_within_one_limit() -> None:
    first, second = a_breaker(max_in_flight=4), a_breaker(max_in_flight=4)
    before, after = first.circuit, second.circuit
    permits = start(first, 4)
    old, new = Shared(before, comes=False), Shared(after, comes=True)
    told(old, new)
    told(new, old)
    assert after.limit.in_flight == before.limit.in_flight == 4
    assert after.limit.load >= after.cap
    for permit in permits[:3]:
        first.finished(NOW, permit, Outcome.OK)
    told(old, new)
    start(second, 3)
    told(new, old)
    assert (new.others, old.others) == (1, 3)
    assert before.limit.load == after.limit.load == 4
    # Its answers are signs of life for the other one.
    first.finished(NOW + 5, permits[3], Outcome.OK)
    new.take(old.report(), NOW + 6)
    assert after.pulse.passed_at == NOW + 5
    new.end()
    assert after.limit.in_flight == 3
    old.end()
    assert before.limit.in_flight == 0


def test_an_operators_word_to_one_is_for_both() -> None:
    before, after = breaker(), breaker()
    old, new = Shared(before, comes=False), Shared(after, comes=True)
    after.pause(NOW, NOW + 9)
    told(new, old)
    assert before.paused_until == NOW + 9
    told(old, new)
    assert after.paused_until == NOW + 9, "it does not come back as another word"
    after.resume(NOW)
    after.set_mode(NOW, Mode.OPEN)
    told(new, old)
    assert (before.paused_until, before.mode) == (None, Mode.OPEN)


def test_a_window_in_which_others_had_the_places_says_nothing() -> None:
    first, after = a_breaker(max_in_flight=8), breaker(max_in_flight=8)
    start(first, 3)
    new = Shared(after, comes=True)
    after.limit.completions = 5
    new.take(Shared(first.circuit, comes=False).report(), NOW)
    assert after.limit.completions == 0


@given(said=JSON)
def test_what_is_something_else_is_refused(said: Any) -> None:
    one = breaker()
    assert not go_on(one, said, b"", b"", NOW)
    assert one.state is State.CLOSED
    with pytest.raises(ValueError, match="no report"):
        Shared(one, comes=True).take(said, NOW)
    assert one.limit.in_flight == 0


@given(octets=st.binary(max_size=200), figures=st.lists(st.floats(), max_size=5))
def test_a_table_of_demands_that_is_none_changes_nothing(
    octets: bytes, figures: list[float]
) -> None:
    one = breaker()
    assert one.fairness is not None
    one.fairness.demand.note(5, 1.0, NOW)
    if not restore_demand(one.fairness.demand, octets, figures, NOW):
        assert one.fairness.demand.demand_of(5, NOW) == 1.0
    one.fairness.demand.note(6, 1.0, NOW)
    assert one.fairness.demand.demand_of(6, NOW) >= 1.0
