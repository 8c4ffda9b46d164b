"""The line in lanes: nobody waits for a later lane."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.base.reason import Reason
from retter.breaker import constants
from retter.breaker.baseline import Baseline
from retter.breaker.fairness import Asker, Fairness
from retter.breaker.lanes import Lanes
from retter.breaker.permit import HEAVY, KNOWN, STRANGER, UNSORTED, Permit, Phase
from retter.breaker.routes import RouteTable
from tests.support.compiled import counts_lines
from tests.support.work import instructions_of

SLACK = 100  # instructions of who listens to the collection of garbage
ROUTE = RouteTable(0.0, Baseline()).get(b"GET /", 0.0)


@dataclass
class Line:
    """A room, and what has happened to it."""

    fairness: Fairness
    room: Lanes
    now: float = 0.0
    served: int = 0

    @classmethod
    def new(cls) -> "Line":
        """Return an empty one."""
        fairness = Fairness(b"secret", 0.0)
        return cls(fairness, Lanes(fairness))

    def come(
        self, lane: int, name: bytes, *, stored: bool, ticket: int = -1, since: float = 0.0
    ) -> Permit:
        """Somebody comes."""
        permit = Permit(Phase.ADMITTED, Reason.ADMITTED, True, ROUTE, name, stored, 0)
        permit.lane, permit.asker, permit.ticket, permit.since = lane, 0, ticket, since
        self.now += 0.001
        self.room.add(permit, self.now)
        return permit

    def issue(self, tickets: int) -> None:
        """Some are given tickets, the first number 0."""
        for _ in range(tickets):
            self.fairness.tickets.issue(0, 0.0)

    def ask_for_much(self, *clients: int) -> None:
        """More than their share is what these ask for, and only these."""
        self.fairness._share_s = self.fairness._light_s = 1.0
        for client in clients:
            self.fairness.demand.note(client, 10.0, 0.0)

    def next(self) -> bytes | None:
        """Somebody gets a place."""
        permit = self.room.next_get()
        return None if permit is None else permit.key


# Arrivals: lane and whether there is a stored response; None: a place becomes free.
STEPS = st.lists(
    st.one_of(st.none(), st.tuples(st.sampled_from([KNOWN, STRANGER, HEAVY]), st.booleans())),
    max_size=80,
)


@given(steps=STEPS, last=st.sampled_from([KNOWN, STRANGER]))
@settings(max_examples=300)
def test_who_comes_in_a_later_lane_changes_nothing_for_an_earlier_one(
    steps: list[tuple[int, bool] | None], last: int
) -> None:
    """Order and expected wait are the same as if there were nobody in the later lanes."""
    whole, part = Line.new(), Line.new()
    order: list[bytes | None] = []
    for number, step in enumerate(steps):
        if step is not None:
            lane, stored = step
            for line in (whole, part):
                if line is whole or lane <= last:
                    line.come(lane, b"%d-%d" % (lane, number), stored=stored)
        else:
            name = whole.next()
            if name is not None and int(name[:1]) <= last:
                order.append(name)
                assert part.next() == name
        for lane in range(last + 1):
            for stored in (False, True):
                ahead = [line.room.ahead(lane, has_stored=stored) for line in (whole, part)]
                assert ahead[0] == ahead[1]
            assert whole.room.in_front(lane) == part.room.in_front(lane)


@given(steps=STEPS)
@settings(max_examples=300)
def test_a_place_goes_to_the_first_lane_that_has_somebody(
    steps: list[tuple[int, bool] | None],
) -> None:
    """But one of sixteen, which the heavy ones get if there are any; and none is lost."""
    line = Line.new()
    waiting: list[tuple[int, bytes]] = []
    since_heavy = 0
    for number, step in enumerate(steps):
        if step is not None:
            name = b"%d" % number
            waiting.append((step[0], name))
            line.come(step[0], name, stored=step[1])
            continue
        taken = line.next()
        assert (taken is None) == (not waiting)
        if taken is None:
            continue
        lane = next(lane for lane, name in waiting if name == taken)
        first = min(lane for lane, _ in waiting)
        heavy_waits = any(lane == HEAVY for lane, _ in waiting)
        assert lane == first or (lane == HEAVY and since_heavy >= constants.HEAVY_TURN - 1)
        since_heavy = since_heavy + 1 if heavy_waits and lane != HEAVY else 0
        assert since_heavy < constants.HEAVY_TURN, "they do not starve"
        waiting.remove((lane, taken))
        assert line.room.waiting == len(waiting)


@given(steps=STEPS, lane=st.sampled_from([KNOWN, STRANGER]), stored=st.booleans())
@settings(max_examples=300)
def test_as_many_go_before_as_was_said(
    steps: list[tuple[int, bool] | None], lane: int, stored: bool
) -> None:
    """If nobody comes meanwhile and no heavy one has a turn, the expected wait is exact."""
    line = Line.new()
    for number, step in enumerate(steps):
        if step is None:
            line.next()
        elif step[0] != HEAVY:
            line.come(step[0], b"%d" % number, stored=step[1])
    ahead = line.room.ahead(lane, has_stored=stored)
    line.come(lane, b"last to come", stored=stored)
    before = 0
    while line.next() != b"last to come":
        before += 1
    assert before == ahead


@given(steps=STEPS, lane=st.sampled_from([KNOWN, STRANGER]))
@settings(max_examples=300)
def test_while_both_kinds_wait_each_has_its_share(
    steps: list[tuple[int, bool] | None], lane: int
) -> None:
    """One place in four goes to a stored response; turns kept from before are eight at most."""
    line = Line.new()
    kinds: dict[bytes, bool] = {}
    row = {False: 0, True: 0}  # places while somebody of the other kind waited
    for number, step in enumerate(steps):
        if step is not None:
            kinds[b"%d" % number] = step[1]
            line.come(lane, b"%d" % number, stored=step[1])
            continue
        both = len(set(kinds.values())) == 2
        name = line.next()
        if name is None:
            continue
        if not both:
            row = {False: 0, True: 0}
        row[kinds.pop(name)] += both
        between = constants.STORED_TURN - 1
        assert row[True] <= row[False] // between + constants.TURNS_KEPT_MAX
        assert row[False] < (row[True] + 1) * between + 1


def test_a_turn_that_nobody_took_is_kept() -> None:
    """A request with a stored response goes first then, but only so often."""
    line = Line.new()
    most = constants.TURNS_KEPT_MAX
    for number in range(10 * most):
        line.come(STRANGER, b"without %d" % number, stored=False)
    for _ in range(5 * most):
        line.next()
    for number in range(2 * most):
        line.come(STRANGER, b"with %d" % number, stored=True)
    assert line.room.ahead(STRANGER, has_stored=False) > line.room.waiting_in(STRANGER) - 2 * most
    order = [line.next() or b"" for _ in range(most + 1)]
    assert order[:most] == [b"with %d" % number for number in range(most)]
    assert order[most].startswith(b"without")


def test_who_has_the_older_ticket_goes_first() -> None:
    """A request with a ticket goes before requests that came after its first try."""
    line = Line.new()
    line.now = 10.0
    line.issue(3)
    line.come(KNOWN, b"session", stored=False)
    for number, since in enumerate((4.0, 2.0, 3.0)):
        line.come(KNOWN, b"%.0f" % since, stored=False, ticket=number, since=since)
    assert [line.next() for _ in range(5)] == [b"2", b"3", b"4", b"session", None]


def test_a_ticket_stands_once() -> None:
    """Replayed a thousand times it gains one place, and the copies stand with the strangers."""
    line = Line.new()
    room = line.room
    line.issue(1)
    for number in range(1000):
        line.come(KNOWN, b"%d" % number, stored=False, ticket=0)
    assert room.counts[2 * KNOWN] == 1
    assert room.counts[2 * STRANGER] == 999
    assert line.next() == b"0"
    line.come(KNOWN, b"again", stored=False, ticket=0)
    assert room.counts[2 * KNOWN] == 0, "used up"


def test_who_gives_up_may_come_again_with_its_ticket() -> None:
    """Its wait was over, or its connection was lost."""
    line = Line.new()
    room = line.room
    line.issue(2)
    permit = line.come(KNOWN, b"leaves", stored=False, ticket=0)
    line.come(KNOWN, b"waits", stored=False, ticket=1)
    room.cancel(permit)
    over = room.expired(line.now + 10, 2.0, lambda _: 0.2, lambda _: 100.0, 2.0)
    assert [one.key for one in over] == [b"waits"]
    for ticket in (0, 1):
        assert not line.fairness.tickets.stands(ticket)
        line.come(KNOWN, b"again", stored=False, ticket=ticket)
    assert room.counts[2 * KNOWN] == 2


def test_what_left_the_line_is_let_go() -> None:
    """Tickets that time out one after the other leave nothing behind."""
    line = Line.new()
    line.issue(1000)
    for number in range(1000):
        line.come(KNOWN, b"%d" % number, stored=False, ticket=number)
        line.room.expired(line.now + 10, 2.0, lambda _: 0.2, lambda _: 100.0, 2.0)
    assert len(line.room._by_age) <= constants.LEFT_MAX
    assert line.room.waiting == 0


def test_of_the_heavy_ones_who_has_got_least_goes_first() -> None:
    """The choice is among the first requests of the lane."""
    line = Line.new()
    demand = line.fairness.demand
    for asker, got in ((1, 5.0), (2, 1.0), (3, 3.0)):
        demand.note(asker, 10.0, 0.0)
        demand.gave(asker, got, 0.0)
        line.come(HEAVY, b"%d" % asker, stored=False).asker = asker
    assert [line.next() for _ in range(3)] == [b"2", b"3", b"1"]


def test_who_waits_is_looked_at_again() -> None:
    """A client that has become heavy moves to the heavy lane, in the order of arrival."""
    line = Line.new()
    for number in range(4):
        line.come(STRANGER, b"%d" % number, stored=False).asker = number
    line.come(HEAVY, b"heavy", stored=False)
    unsorted = line.come(UNSORTED, b"crawler", stored=False)
    unsorted.who = Asker(9, crawler="bot")
    line.ask_for_much(1, 2)
    line.room.sort(line.fairness, 0.0)
    assert line.room.counts == [0, 0, 2, 0, 4, 0]
    waiting = [permit.key for permit in line.room._lines[2 * HEAVY]]
    assert waiting == [b"1", b"2", b"heavy", b"crawler"]
    assert [line.next() for _ in range(3)] == [b"0", b"3", b"1"]
    assert unsorted.lane == HEAVY


def test_a_ticket_gains_nothing_for_who_asks_for_too_much_by_now() -> None:
    """It stood with the known ones, and does so no more."""
    line = Line.new()
    line.issue(1)
    line.come(KNOWN, b"ticket", stored=False, ticket=0).asker = 1
    line.come(STRANGER, b"stranger", stored=False)
    line.ask_for_much(1)
    line.room.sort(line.fairness, 0.0)
    assert [line.next() for _ in range(3)] == [b"stranger", b"ticket", None]


@pytest.mark.parametrize("lane", [STRANGER, HEAVY])
def test_later_lanes_leave_room_to_earlier_ones(lane: int) -> None:
    """A flood fills its lane, and not the line."""
    line = Line.new()
    while not line.room.is_full(lane, 100):
        line.come(lane, b"x", stored=False)
    assert not line.room.is_full(lane - 1, 100)


@given(steps=STEPS, lane=st.sampled_from([KNOWN, STRANGER]))
def test_others_wait_behind_who_goes_before_them(
    steps: list[tuple[int, bool] | None], lane: int
) -> None:
    """Somebody in a later lane, or without a stored response if a turn was kept."""
    line = Line.new()
    for number, step in enumerate(steps):
        if step is None:
            line.next()
        else:
            line.come(step[0], b"%d" % number, stored=step[1])
    room = line.room
    behind = room.waits_behind(lane)
    later = sum(room.waiting_in(one) for one in (KNOWN, STRANGER, HEAVY) if one > lane)
    needy = room.counts[2 * lane]
    before = room.ahead(lane, has_stored=True)
    earlier = sum(room.waiting_in(one) for one in (KNOWN, STRANGER, HEAVY) if one < lane)
    goes_before_the_needy = before == earlier + room.counts[2 * lane + 1]
    assert behind == (later > 0 or (needy > 0 and goes_before_the_needy))


@counts_lines
@pytest.mark.parametrize("lane", [KNOWN, STRANGER, HEAVY])
@pytest.mark.parametrize("stored", [False, True])
def test_a_place_costs_the_same_however_many_wait(lane: int, stored: bool) -> None:
    """To come, to be told the wait, and to be the next: without a look at the others."""

    def cost(waiting: int) -> int:
        line = Line.new()
        for number in range(waiting):
            line.come(lane, b"%d" % number, stored=stored)

        def one() -> None:
            line.come(lane, b"last", stored=stored)
            line.room.ahead(lane, has_stored=stored)
            line.next()

        one()
        return instructions_of(one)

    assert cost(2000) <= cost(20) + SLACK


@counts_lines
def test_a_ticket_costs_little_more_however_many_wait_with_one() -> None:
    """They stand in a heap: twice the depth for the square of their number."""

    def cost(waiting: int) -> int:
        line = Line.new()
        line.issue(waiting + 1)
        for number in range(waiting):
            line.come(KNOWN, b"t", stored=False, ticket=number, since=-float(number))
        return instructions_of(
            lambda: (line.come(KNOWN, b"last", stored=False, ticket=waiting), line.next())
        )

    assert cost(2000) <= cost(20) + 20 + SLACK
