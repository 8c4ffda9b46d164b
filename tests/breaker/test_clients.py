"""Failures by client: those of one client open nothing, lower nothing, and delay no recovery."""

from math import inf
from typing import Any

import pytest

from retter.base.errors import Outcome
from retter.breaker import Kind, Mode, Permit, State, constants
from retter.breaker.clients import UNKNOWN_CLIENT, Clients
from retter.breaker.snapshot import Snapshot
from tests.support.breaker_driver import Driver

# -- alone ----------------------------------------------------------------------------------------


def counted(clients: Clients, *who: int, now: float = 0.0) -> list[bool]:
    """Let these clients fail one after the other; return which failures count."""
    return [clients.failed(client, now) for client in who]


def test_of_one_client_two_failures_count_while_others_are_answered_well() -> None:
    clients = Clients(0.0)
    clients.passed(1, 0.0)
    assert counted(clients, 2, 2, 2, 2) == [True, True, False, False]
    assert counted(clients, 3, 3, 3) == [True, True, False]


def test_all_count_where_nobody_else_was_active() -> None:
    clients = Clients(0.0)
    clients.passed(2, 0.0)
    assert all(counted(clients, *[2] * 9))
    clients.passed(1, 0.0)
    assert all(counted(clients, *[2] * 9, now=constants.CLIENT_ACTIVE_S + 1))


def test_unknown_ones_are_clients_of_their_own() -> None:
    clients = Clients(0.0)
    clients.passed(1, 0.0)
    assert all(counted(clients, *[UNKNOWN_CLIENT] * 9))
    assert clients.agree(0.0)


def test_the_next_window_counts_two_again() -> None:
    clients = Clients(0.0)
    clients.passed(1, 0.0)
    assert counted(clients, 2, 2, 2) == [True, True, False]
    clients.advance(constants.CLIENT_WINDOW_S - 0.1)
    assert counted(clients, 2) == [False]
    clients.advance(constants.CLIENT_WINDOW_S)
    assert counted(clients, 2, 2, 2) == [True, True, False]


@pytest.mark.parametrize(
    ("failing", "passed", "agree"),
    [
        ([2], [1], False),
        ([2, 2, 2], [1], False),
        ([2, 3], [1], False),
        ([2, 3, 4], [1], True),
        ([2, 3], [], True),  # all that were active
        ([2, 3], [3, 2], True),
        ([2, 3], [1, 3, 2], False),  # the third last counts too
        ([UNKNOWN_CLIENT, 2], [1], False),
        ([UNKNOWN_CLIENT, 2, 3], [1], True),
    ],
)
def test_something_is_concluded_from_three_clients_or_from_all(
    failing: list[int], passed: list[int], agree: bool
) -> None:
    clients = Clients(0.0)
    for client in passed:
        clients.passed(client, 0.0)
    counted(clients, *failing, now=0.1)
    assert clients.agree(0.1) is agree


def test_on_a_quiet_site_three_clients_in_a_row_are_enough() -> None:
    """However long that takes, but a good answer ends the row."""
    clients = Clients(0.0)
    clients.passed(1, 0.0)
    for client in (2, 3, 4):
        clients.advance(10.0 * client)
        counted(clients, client, now=10.0 * client)
    assert clients.agree(40.0)
    clients.passed(1, 40.0)
    clients.advance(50.0)
    counted(clients, 2, now=50.0)
    assert not clients.agree(50.0)


def test_who_goes_on_failing_while_others_pass_is_in_doubt() -> None:
    clients = Clients(0.0)
    clients.passed(1, 0.0)
    counted(clients, *[2] * 3, now=1.0)
    assert not clients.is_doubted(2, 1.0), "it may be the beginning of an outage"
    clients.passed(1, 2.0)
    assert clients.is_doubted(2, 2.0)
    clients.clear()
    assert clients.is_doubted(2, 3.0), "also when the circuit has changed"
    assert not clients.is_doubted(2, 1.0 + constants.DOUBT_S)
    clients.passed(2, 4.0)
    assert not clients.is_doubted(2, 4.0)


def test_nobody_is_in_doubt_in_an_outage() -> None:
    clients = Clients(0.0)
    for client in range(1, 6):
        clients.passed(client, 0.0)
    for client in range(1, 6):
        counted(clients, *[client] * 10, now=1.0)
    assert not any(clients.is_doubted(client, 2.0) for client in range(1, 6))


def test_what_is_remembered_is_bounded() -> None:
    clients = Clients(0.0)
    clients.passed(1, 0.0)
    for client in range(2, 5 * constants.CLIENTS_MAX):
        counted(clients, *[client] * 3)
    for part in (clients._failed, clients._failed_in_row, clients._doubted):
        assert len(part) <= constants.CLIENTS_MAX


# -- in the circuit -------------------------------------------------------------------------------


class Site:
    """A circuit, visitors that are answered well, and one client that is not."""

    def __init__(self) -> None:
        self.driver = Driver()

    def ask(self, client: int, outcome: Outcome, **how: Any) -> object:
        """Let a client's request end like that, if it is forwarded."""
        decision = self.driver.admit(client=client, **how)
        if isinstance(decision, Permit) and decision in self.driver.in_flight:
            self.driver.tick(0.005)
            self.driver.finish(decision, outcome)
        return decision

    @property
    def state(self) -> State:
        """The circuit's."""
        return self.driver.breaker.circuit.state

    @property
    def snapshot(self) -> Snapshot:
        """The circuit's figures."""
        return self.driver.breaker.snapshot(self.driver.now)


FAILURES = [Outcome.OVERLOAD, Outcome.ERROR]


@pytest.mark.parametrize("outcome", FAILURES)
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("every", [1, 10, 100])
def test_one_client_changes_nothing_for_the_others(
    outcome: Outcome, kind: Kind, every: int
) -> None:
    """Whether the others ask often or seldom."""
    site = Site()
    for number in range(400):
        if number % every == 0:
            site.ask(1 + number % 7, Outcome.OK, key=b"/page")
        site.ask(66, outcome, kind=kind, key=b"/%d" % number, route=b"/%d" % (number % 9))
        site.driver.tick(0.05)
    assert (site.state, site.driver.transitions) == (State.CLOSED, [])
    snapshot = site.snapshot
    assert (snapshot.routes_open, snapshot.ceiling) == ((), inf)


@pytest.mark.parametrize("outcome", FAILURES)
def test_many_at_once_of_one_client_are_no_ceiling(outcome: Outcome) -> None:
    site = Site()
    for round_ in range(40):
        site.ask(1 + round_ % 7, Outcome.OK, key=b"/page")
        permits = [site.driver.admit(kind=Kind.OTHER, client=66, key=b"/%d" % n) for n in range(50)]
        site.driver.tick(0.005)
        for permit in permits:
            assert isinstance(permit, Permit)
            site.driver.finish(permit, outcome)
        site.driver.tick(0.5)
    assert site.snapshot.ceiling == inf
    assert site.driver.transitions == []


@pytest.mark.parametrize("outcome", FAILURES)
def test_failures_of_three_clients_open_the_circuit(outcome: Outcome) -> None:
    site = Site()
    for client in range(1, 8):
        site.ask(client, Outcome.OK, key=b"/page")
    site.driver.tick(constants.CLIENT_WINDOW_S + 1)
    for number in range(6):
        site.ask(1 + number % 3, outcome, key=b"/%d" % number, route=b"/%d" % number)
    assert site.state is State.OPEN


def test_an_only_visitor_opens_it_as_well() -> None:
    site = Site()
    for number in range(6):
        site.ask(1, Outcome.OVERLOAD, key=b"/%d" % number, route=b"/%d" % number)
    assert site.state is State.OPEN


def test_refused_connections_are_nobodys_own() -> None:
    """There is no doubt about what they mean."""
    site = Site()
    site.ask(2, Outcome.OK, key=b"/page")
    for number in range(6):
        site.ask(1, Outcome.REFUSED, key=b"/%d" % number, route=b"/%d" % number)
    assert site.state is State.OPEN


def blocked_one(site: Site) -> None:
    """Let client 66 fail on and on while others are answered well."""
    for number in range(20):
        site.ask(1 + number % 7, Outcome.OK, key=b"/page")
        site.ask(66, Outcome.OVERLOAD, kind=Kind.OTHER, key=b"/contact")
    assert site.state is State.CLOSED


def test_a_blocked_client_is_not_what_finds_out_whether_it_works_again() -> None:
    site = Site()
    blocked_one(site)
    for number in range(6):
        site.ask(1 + number, Outcome.REFUSED, key=b"/%d" % number)
    assert site.state is State.OPEN
    site.driver.tick(1.2)
    site.ask(66, Outcome.OVERLOAD, key=b"/contact")
    assert site.snapshot.probes == 0, "others come first"
    site.ask(1, Outcome.OK, key=b"/page")
    assert site.state is State.HALF_OPEN


def test_its_failure_is_no_failed_trial() -> None:
    site = Site()
    blocked_one(site)
    for number in range(6):
        site.ask(1 + number, Outcome.REFUSED, key=b"/%d" % number)
    site.driver.tick(1.2)
    site.ask(1, Outcome.OK, key=b"/page")
    assert site.state is State.HALF_OPEN
    for _ in range(5):
        site.ask(66, Outcome.OVERLOAD, kind=Kind.OTHER, key=b"/contact")
        assert site.state is State.HALF_OPEN
    site.ask(2, Outcome.OVERLOAD, key=b"/page")
    assert site.state is State.OPEN, "another's is"


def test_if_nobody_else_comes_it_may_find_out_all_the_same() -> None:
    site = Site()
    blocked_one(site)
    for number in range(6):
        site.ask(1 + number, Outcome.REFUSED, key=b"/%d" % number)
    site.driver.tick(1.2 + constants.DOUBTED_PROBE_S)
    site.ask(66, Outcome.OK, key=b"/contact")
    assert site.state is State.HALF_OPEN


def test_a_blocked_client_that_waits_is_passed_over_for_the_probe() -> None:
    site = Site()
    blocked_one(site)
    for number in range(6):
        site.ask(1 + number, Outcome.REFUSED, key=b"/%d" % number)
    doubted = site.driver.admit(client=66, key=b"/a", stored=None)
    other = site.driver.admit(client=1, key=b"/b", stored=None)
    assert isinstance(doubted, Permit)
    assert isinstance(other, Permit)
    site.driver.tick(1.2)
    assert other in site.driver.in_flight
    assert doubted not in site.driver.in_flight


def test_held_closed_or_open_counts_nothing() -> None:
    site = Site()
    for mode in (Mode.CLOSED, Mode.OPEN):
        site.driver.breaker.circuit.set_mode(site.driver.now, mode)
        blocked = [site.ask(66, Outcome.OVERLOAD, kind=Kind.OTHER) for _ in range(9)]
        assert all(isinstance(one, Permit) for one in blocked)
