"""Known and heavy clients; requests are not sorted while there is enough for all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.base.reason import Reason
from retter.breaker import (
    Asker,
    BreakerSettings,
    FairnessMode,
    Kind,
    Mode,
    Permit,
    Phase,
    Rejection,
    State,
    constants,
)
from retter.breaker.baseline import Baseline
from retter.breaker.fairness import Fairness, Sorted
from retter.breaker.permit import HEAVY, KNOWN, STRANGER, UNSORTED
from retter.breaker.routes import RouteTable
from retter.store.known_sessions import ISSUED, KEPT
from tests.support.breaker_driver import Driver
from tests.support.compiled import counts_lines
from tests.support.tracing import untraced
from tests.support.work import instructions_of

SLACK = 100  # instructions of who listens to the collection of garbage
FAIR = BreakerSettings(fairness=FairnessMode.ON, max_in_flight=8)


def crowded() -> Fairness:
    """Return what is known when one client asks for much and ten for little; half of it is got."""
    fairness = Fairness(b"secret", 0.0)
    for client in range(1, 11):
        place = fairness.note(Asker(client), 0.05, 0.0)
        fairness.demand.gave(place.asker, 0.05, 0.0)
    fairness.note(Asker(99), 20.0, 0.0)
    fairness.demand.gave(99, 5.0, 0.0)
    fairness.tick(0.0, 8.0, 0.05, enough=False)
    return fairness


def test_who_asks_for_more_than_the_fair_share_is_heavy() -> None:
    """And nobody else."""
    fairness = crowded()
    assert fairness.sort(Asker(99), 0.05, 0.0).lane == HEAVY
    assert fairness.sort(Asker(1), 0.05, 0.0).lane == STRANGER


def test_so_many_answers_are_never_too_much() -> None:
    """A page with its parts, even if the share is less."""
    fairness = Fairness(b"secret", 0.0)
    for client in range(1, 1001):
        fairness.note(Asker(client), 0.5, 0.0)
    fairness.tick(0.0, 8.0, 0.05, enough=False)
    assert fairness.demand.fair_share([0.5] * 1000, 0.0) == 0.0, "nobody got anything"
    fairness.note(Asker(5000), (constants.LIGHT_ANSWERS_FIRST - 1) * 0.05, 0.0)
    assert fairness.place_of(Asker(5000), 0.0).lane == STRANGER
    assert fairness.place_of(Asker(1), 0.0).lane == HEAVY


@untraced
@given(ages_s=st.lists(st.floats(0.25, 60), min_size=2, max_size=6))
def test_what_is_never_too_much_grows_with_the_time_that_an_overload_lasts(
    ages_s: list[float],
) -> None:
    """From two answers to twelve: at first nobody can have asked for much."""
    fairness = Fairness(b"secret", 0.0)
    limits: list[float] = []
    for now in (0.0, *sorted(ages_s), 1000.0):
        for client in range(1, 1001):
            fairness.note(Asker(client), 1.0, now)
        fairness.tick(now, 8.0, 0.05, enough=False)
        limits.append(fairness.limit_s)
    assert limits == sorted(limits)
    assert limits[0] == constants.LIGHT_ANSWERS_FIRST * 0.05
    assert limits[-1] == pytest.approx(constants.LIGHT_ANSWERS * 0.05)


def test_who_does_not_cause_the_shortage_may_have_a_page_with_its_parts_at_once() -> None:
    """A thousand ask for one answer each; ten visitors for four, which changes little."""
    fairness = Fairness(b"secret", 0.0)
    for client in range(1, 1001):
        fairness.note(Asker(client), 0.05, 0.0)
    for client in range(1001, 1011):
        fairness.note(Asker(client), 4 * 0.05, 0.0)
    fairness.demand.gave(1, 20.0, 0.0)
    fairness.tick(0.0, 8.0, 0.05, enough=False)
    assert fairness.limit_s == constants.LIGHT_ANSWERS * 0.05
    assert fairness.place_of(Asker(1001), 0.0).lane == STRANGER


def test_a_crawler_by_its_own_word_is_heavy() -> None:
    """Whatever else it is."""
    fairness = crowded()
    for asker in (Asker(1, crawler="bot"), Asker(1, session=5, standing=ISSUED, crawler="bot")):
        assert fairness.sort(asker, 0.05, 0.0).lane == HEAVY


def test_a_session_that_the_application_began_stands_for_itself() -> None:
    """An office behind one address does not suffer together."""
    fairness = crowded()
    assert fairness.sort(Asker(99, session=5, standing=ISSUED), 0.05, 0.0).lane == KNOWN
    assert fairness.sort(Asker(99), 0.05, 0.0).lane == HEAVY
    fairness.note(Asker(1, session=5, standing=ISSUED), 20.0, 0.0)
    assert fairness.place_of(Asker(1, session=5, standing=ISSUED), 0.0).lane == HEAVY


def test_what_a_client_makes_up_makes_it_known_to_nobody() -> None:
    """A session, a ticket: it stays a stranger, and its address pays."""
    fairness = crowded()
    for number in range(1000):
        fairness.sort(Asker(1, session=1000 + number, ticket=b"%032d" % number), 0.05, 0.0)
    assert fairness.place_of(Asker(1, session=7), 0.0).lane == HEAVY
    assert fairness.asked[KNOWN] == 0


def test_a_session_that_may_be_made_up_adds_to_what_its_address_asks_for() -> None:
    """Known it is, as long as the address asks for little."""
    fairness = crowded()
    assert fairness.sort(Asker(1, session=5, standing=KEPT), 0.05, 0.0).lane == KNOWN
    assert fairness.sort(Asker(99, session=6, standing=KEPT), 0.05, 0.0).lane == HEAVY


def test_a_ticket_makes_known_and_the_one_that_is_good_is_kept() -> None:
    """Since the first try; one that is used up is not renewed but begins anew."""
    fairness = crowded()
    text, since = fairness.ticket_for(Asker(1), 1.0)
    assert since == 1.0
    asker = Asker(1, ticket=text)
    assert fairness.ticket_for(asker, 5.0)[0] == text
    place = fairness.sort(asker, 0.05, 5.0)
    assert place.lane == KNOWN
    assert abs(place.since - 1.0) < 0.2
    assert fairness.sort(Asker(2, ticket=text), 0.05, 5.0).lane == STRANGER, "another address"
    assert fairness.sort(Asker(99, ticket=text), 0.05, 5.0).lane == HEAVY
    fairness.tickets.spend(place.ticket)
    assert fairness.sort(asker, 0.05, 5.0).lane == STRANGER
    assert fairness.ticket_for(asker, 6.0)[0] != text


def test_who_comes_again_with_its_ticket_asks_for_nothing_more() -> None:
    """It is one page, however often its waiting page is loaded; a used ticket counts."""
    fairness = crowded()
    text, _ = fairness.ticket_for(Asker(1), 0.0)
    before = fairness.demand.demand_of(1, 0.0)
    for _ in range(50):
        assert fairness.sort(Asker(1, ticket=text), 0.05, 0.0).lane == KNOWN
    assert fairness.demand.demand_of(1, 0.0) == before
    place = fairness.sort(Asker(1, ticket=text), 0.05, 0.0)
    fairness.tickets.spend(place.ticket)
    fairness.sort(Asker(1, ticket=text), 0.05, 0.0)
    assert fairness.demand.demand_of(1, 0.0) == before + 0.05


def admit(fairness: Fairness, place: Sorted, now: float) -> None:
    """Let a request with this lane in."""
    route = RouteTable(0.0, Baseline()).get(b"GET /", 0.0)
    permit = Permit(Phase.ADMITTED, Reason.ADMITTED, True, route, b"/", False, 0)
    permit.lane, permit.asker, permit.ticket, permit.since = place
    fairness.admitted(permit, 0.05, now)


def test_a_page_that_was_waited_for_counts_once_in_all() -> None:
    """When its visitor gets it, however long that took."""
    fairness = crowded()
    fairness.sort(Asker(50), 0.05, 0.0)
    text, _ = fairness.ticket_for(Asker(50), 0.0)
    admit(fairness, fairness.sort(Asker(50, ticket=text), 0.05, 15.0), 15.0)
    assert abs(fairness.demand.demand_of(50, 15.0) - 0.05) < 1e-9


def test_who_collects_tickets_gets_no_more_than_anybody_else() -> None:
    """It asked for much, but so long ago that little of it is left, and has many tickets."""
    fairness = crowded()
    texts = []
    for _ in range(300):
        fairness.sort(Asker(50), 0.05, 0.0)
        texts.append(fairness.ticket_for(Asker(50), 0.0)[0])
    now = 100.0
    for client in range(1, 1001):
        fairness.note(Asker(client), 0.5, now)
    fairness.tick(now, 8.0, 0.05, enough=False)
    lanes = []
    for text in texts:
        place = fairness.sort(Asker(50, ticket=text), 0.05, now)
        lanes.append(place.lane)
        admit(fairness, place, now)
    assert lanes[0] == KNOWN
    assert lanes.count(KNOWN) <= constants.LIGHT_ANSWERS + 1
    assert lanes[-1] == HEAVY


@counts_lines
def test_to_find_a_lane_costs_the_same_however_many_clients_there_are() -> None:
    """With a session and a ticket or without, of a new client or one that is there."""

    def cost(clients: int, asker: Asker) -> int:
        fairness = Fairness(b"secret", 0.0)
        for client in range(1, clients + 1):
            fairness.note(Asker(client), 0.05, 0.0)
        fairness.tick(0.0, 8.0, 0.05, enough=False)
        text, _ = fairness.ticket_for(asker, 0.0)
        asker = asker._replace(ticket=text) if asker.ticket else asker
        return instructions_of(lambda: fairness.sort(asker, 0.05, 0.0))

    for asker in (Asker(1), Asker(10**6), Asker(1, ticket=b"?"), Asker(1, "", 7, ISSUED)):
        assert cost(4000, asker) <= cost(10, asker) + SLACK


# --- at the circuit ---


def get(driver: Driver, client: int, key: bytes, stored: float | None = None) -> Permit | Rejection:
    """Somebody asks for a page."""
    return driver.admit(Kind.GET, key, stored=stored, asker=Asker(client))


@given(
    asked=st.lists(
        st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=60
    )
)
@settings(max_examples=60, deadline=None)
def test_nothing_is_sorted_while_closed(asked: list[tuple[int, bool, int]]) -> None:
    """Demand may be counted, but there is one queue for all, in the order of arrival."""
    driver = Driver(BreakerSettings(fairness=FairnessMode.ON))
    fairness = driver.breaker.circuit.fairness
    assert fairness is not None
    order: list[Permit] = []
    for number, (client, stored, ends) in enumerate(asked):
        decision = get(driver, client, b"/%d" % number, 1.0 if stored else None)
        if driver.breaker.circuit.state is not State.CLOSED:
            return
        assert isinstance(decision, Permit)
        assert decision.lane == UNSORTED
        order.append(decision)
        for permit in driver.in_flight[:ends]:
            driver.finish(permit)
        assert fairness.asked == [0, 0, 0]


def test_below_half_of_the_places_nobody_is_counted() -> None:
    """It costs nothing as long as it cannot matter."""
    driver = Driver(BreakerSettings(fairness=FairnessMode.ON, max_in_flight=8))
    fairness = driver.breaker.circuit.fairness
    assert fairness is not None
    for number in range(4):
        assert not driver.breaker.wants_asker(has_stored=False)
        get(driver, 1, b"/%d" % number)
    assert not len(fairness.demand)
    assert driver.breaker.wants_asker(has_stored=True)
    get(driver, 1, b"/4")
    assert 1 in fairness.demand


def test_a_visitor_gets_the_next_place_though_a_crawler_waits() -> None:
    """Beside one that has asked for a hundred pages."""
    driver = Driver(FAIR)
    for number in range(100):
        get(driver, 1, b"/crawled/%d" % number)
        if number == 50:
            driver.tick()
    assert driver.breaker.circuit.state is State.LIMITING
    driver.tick()
    crawler = get(driver, 1, b"/more")
    visitor = get(driver, 2, b"/read")
    assert isinstance(visitor, Permit)
    assert (visitor.lane, visitor.phase) == (STRANGER, Phase.QUEUED)
    assert isinstance(crawler, Rejection) or crawler.lane == HEAVY
    queued = [permit for permit in driver.queued if permit.lane == UNSORTED]
    for permit in list(driver.in_flight)[:1]:
        driver.finish(permit)
    # Requests that arrived before there were lanes wait with the strangers, before the visitor.
    assert all(permit.lane != HEAVY for permit in driver.in_flight[-1:])
    assert visitor in driver.queued or not queued


def test_observed_the_line_stays_one_for_all() -> None:
    """The decisions that would be made are counted."""
    driver = Driver(BreakerSettings(fairness=FairnessMode.OBSERVE, max_in_flight=8))
    for number in range(100):
        get(driver, 1, b"/crawled/%d" % number)
    driver.tick()
    get(driver, 1, b"/more")
    fairness = driver.breaker.circuit.fairness
    assert fairness is not None
    assert sum(fairness.asked) > 0
    order = [permit.key for permit in driver.queued]
    while driver.queued:
        driver.finish(driver.in_flight[0])  # the driver looks at the order
    assert len(order) > 1


def test_switched_off_there_is_none_of_it() -> None:
    """The plain line, and no table."""
    driver = Driver()
    assert driver.breaker.circuit.fairness is None
    assert driver.breaker.circuit.calm == driver.breaker.circuit.cap


def test_an_open_circuit_does_not_ask_who_gets_a_stored_response() -> None:
    driver = Driver(BreakerSettings(fairness=FairnessMode.ON, mode=Mode.OPEN))
    assert driver.breaker.circuit.state is State.OPEN
    assert not driver.breaker.wants_asker(has_stored=True)
    assert driver.breaker.wants_asker(has_stored=False)


def test_who_has_others_behind_waits_longer_for_a_fresh_answer() -> None:
    """For two answers of a slow application; in front of nobody for half of one."""
    driver = Driver(FAIR)
    circuit = driver.breaker.circuit
    for _ in range(30):
        get(driver, 1, b"/", 1.0)
        driver.tick(0.2)
        driver.finish(driver.in_flight[0])
    assert circuit.baseline.mean_s == pytest.approx(0.2, rel=0.1)
    assert circuit.stored_wait_s(STRANGER) == pytest.approx(0.1, rel=0.1)
    for number in range(100):
        get(driver, 1, b"/crawled/%d" % number)
    for _ in range(10):
        driver.tick()
    get(driver, 1, b"/more")
    assert circuit.room.waiting_in(HEAVY)
    assert circuit.stored_wait_s(STRANGER) == pytest.approx(0.4, rel=0.1)
    assert circuit.stored_wait_s(HEAVY) == pytest.approx(0.1, rel=0.1)
