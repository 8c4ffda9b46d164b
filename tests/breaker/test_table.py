"""How requests ended by the number in flight: what the table proves, and what chance cannot do."""

from heapq import heappop, heappush
from itertools import pairwise
from math import comb, exp, inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.base.errors import Outcome
from retter.breaker import BreakerSettings, Kind, Permit, Phase, State, constants
from retter.breaker.table import ConcurrencyTable, surprise
from tests.support.breaker_driver import TICK_S, Driver
from tests.support.tracing import untraced


def table() -> ConcurrencyTable:
    """Return one after its first second."""
    made = ConcurrencyTable(0.0, 8)
    made.advance(constants.FIRST_S)
    return made


def count(
    made: ConcurrencyTable, rank: int, *, in_time: int = 0, late: int = 0, failed: int = 0
) -> None:
    """Let so many requests of one rank end."""
    row = made.by_rank[rank]
    row.in_time += in_time
    row.late += late
    row.failed += failed


def test_every_rank_has_a_row_and_small_ones_their_own() -> None:
    """Rows grow with their rank, and none is missed."""
    made = table()
    assert len(made.by_rank) == constants.RANK_MAX + 1
    for rank in range(1, 33):
        assert made.by_rank[rank].first == rank
    for below, above in pairwise(made.rows):
        assert below.first < above.first
        assert made.by_rank[above.first] is above
        assert made.by_rank[above.first - 1] is below


def test_what_is_proven() -> None:
    """The highest rank from which six answers came, and seven of ten in time."""
    made = table()
    for rank in range(1, 9):
        count(made, rank, in_time=20)
    count(made, 20, in_time=5)
    made.read_proven()
    assert made.proven == 8
    count(made, 19, in_time=1)
    made.read_proven()
    assert made.proven == 19
    count(made, 20, late=5)
    made.read_proven()
    assert made.proven == 8
    assert table().proven == 1


def test_late_answers_are_an_edge_only_if_those_below_it_are_not() -> None:
    """Where all are late the application is slow, or the baseline wrong: that is no queue."""
    made = table()
    for rank in range(1, 9):
        count(made, rank, in_time=20, late=4)
    assert not made.read_edge()
    for rank in range(9, 17):
        count(made, rank, in_time=1, late=4)
    assert made.read_edge()
    assert made.late_from == 9
    slow = table()
    for rank in range(1, 17):
        count(slow, rank, in_time=1, late=20)
    assert not slow.read_edge()
    assert slow.late_from == inf


def test_a_ceiling_is_found_where_it_is() -> None:
    """Above ten all fail; two in a hundred fail anyway."""
    made = table()
    for rank in range(1, 11):
        count(made, rank, in_time=30)
    count(made, 4, failed=2)
    count(made, 11, failed=2)
    assert not made.read_ceiling()
    assert made.ceiling == inf
    count(made, 11, failed=2)
    count(made, 13, failed=1)
    assert made.read_ceiling()
    assert made.ceiling == 10
    assert not made.read_ceiling(), "it is not lowered again"


def test_a_ceiling_is_never_below_what_any_application_holds() -> None:
    """Whatever fails with so few in flight is no lack of room."""
    made = table()
    count(made, 1, in_time=30)
    count(made, 2, failed=30)
    assert made.read_ceiling()
    assert made.ceiling == constants.SPARE + 1


def test_successes_above_the_ceiling_make_it_doubtful() -> None:
    """A few in a row halve what is known of failures, and another trial is due at once."""
    made = table()
    for rank in range(1, 11):
        count(made, rank, in_time=30)
    count(made, 11, failed=16)
    made.read_ceiling()
    made.trial_at = 100.0
    rounds = 0
    while made.ceiling < inf:
        count(made, 11, in_time=1)
        made.passed_above_ceiling(50.0, 11)
        assert made.trial_at == 50.0
        rounds += 1
    assert constants.REFUTED_BY < rounds <= constants.REFUTED_BY + 4


def test_one_of_two_above_the_ceiling_is_no_doubt() -> None:
    """An application is free a little before its answer is seen: then some pass, and some fail."""
    made = table()
    for rank in range(1, 11):
        count(made, rank, in_time=30)
    count(made, 11, failed=16)
    made.read_ceiling()
    for _ in range(12):
        for _ in range(constants.REFUTED_BY - 1):
            count(made, 11, in_time=1)
            made.passed_above_ceiling(50.0, 11)
        count(made, 11, failed=1)
        made.failed_above_ceiling()
    assert made.ceiling == 10


def test_rows_forget() -> None:
    """By time, and by what comes after."""
    made = table()
    count(made, 5, in_time=1000)
    made.advance(constants.FIRST_S)
    assert made.by_rank[5].outcomes == pytest.approx(constants.ROW_OUTCOMES_MAX)
    made.advance(constants.FIRST_S + constants.TABLE_HALF_LIFE_S)
    assert made.by_rank[5].outcomes == pytest.approx(constants.ROW_OUTCOMES_MAX / 2)


def test_the_hint_holds_for_the_first_second() -> None:
    """Then only what is proven counts, and what any application can do."""
    made = ConcurrencyTable(0.0, 40)
    assert made.known_good == 40
    made.advance(constants.FIRST_S)
    assert made.known_good == constants.SMALL


@given(
    below=st.integers(1, 40),
    above=st.integers(1, 40),
    bad_below=st.integers(0, 40),
    bad_above=st.integers(0, 40),
)
def test_the_surprise_bounds_the_probability_of_a_division(
    below: int, above: int, bad_below: int, bad_above: int
) -> None:
    """Of all ways to divide the bad outcomes, chance takes this one with a probability of at most
    (n + 1) * exp(-surprise): computed and not tuned."""
    bad_below, bad_above = min(bad_below, below), min(bad_above, above)
    bound = (below + above + 1) * exp(-surprise(bad_below, below, bad_above, above))
    assert division(bad_below, below, bad_above, above) <= bound * (1 + 1e-9)


def test_few_outcomes_below_prove_as_little_as_few_above() -> None:
    """Five answers in time below, and half of 200 late above: chance does that."""
    assert surprise(0, 5, 100, 200) < 5
    assert surprise(0, 50, 100, 200) > 20


def test_five_answers_in_time_at_low_ranks_do_not_limit_a_wide_application() -> None:
    """Half of its answers are late at all high ranks: they take as long as they take."""
    made = table()
    for rank in range(1, 6):
        count(made, rank, in_time=1)
    for rank in range(20, 80, 4):
        count(made, rank, in_time=6, late=7)
    assert not made.read_edge()
    for rank in range(6, 20):
        count(made, rank, in_time=3)
    assert made.read_edge(), "with 47 in time below, there is an edge"
    assert made.late_from == 20


def test_what_ends_alike_everywhere_is_no_surprise() -> None:
    """Nothing bad, all bad, or the same share."""
    assert surprise(0, 5, 0, 7) == 0
    assert surprise(5, 5, 7, 7) == 0
    assert surprise(5, 10, 50, 100) == pytest.approx(0)


def division(bad_below: int, below: int, bad_above: int, above: int) -> float:
    """Return the probability that so many of the bad outcomes are below (hypergeometric)."""
    ways = comb(below, bad_below) * comb(above, bad_above)
    return ways / comb(below + above, bad_below + bad_above)


@given(
    ranks=st.lists(
        st.tuples(st.integers(1, 40), st.integers(0, 20)),
        min_size=1,
        max_size=8,
        unique_by=lambda x: x[0],
    ),
    rank=st.integers(2, 30),
    passed=st.integers(0, 20),
    failed=st.integers(0, 12),
)
@settings(max_examples=300, deadline=None)
def test_what_the_failures_of_one_rank_do_has_a_bound_that_is_computed(
    ranks: list[tuple[int, int]], rank: int, passed: int, failed: int
) -> None:
    """All other ranks have good answers alone. A ceiling lies below the rank that fails, but not
    below a good one. There is none unless chance makes so many failures once in a thousand times
    at most."""
    made = table()
    for other, good in ranks:
        count(made, other, in_time=good)
    count(made, rank, in_time=passed, failed=failed)
    rows = sum(row.outcomes > 0 for row in made.rows)
    below = int(sum(row.outcomes for row in made.rows if row.first < rank))
    above = int(sum(row.outcomes for row in made.rows if row.first >= rank))
    made.read_ceiling()
    if made.ceiling == inf:
        return
    known_good = max(row.first for row in made.rows if row.outcomes and row.first < rank)
    assert known_good <= made.ceiling
    assert made.ceiling <= max(constants.SPARE + 1, rank - 1)
    once_in = constants.CHANCE / rows * (below + above + 1)
    assert division(0, below, failed, above) <= once_in * (1 + 1e-9)


@untraced
def test_chance_makes_no_ceiling() -> None:
    """Failures that lean to nothing, at any rank, at a share p: one table in a thousand at most.

    The bound holds for one look at all rows; here are 4,000 tables, each looked at once.
    """
    rng = Random(1)
    found = 0
    for number in range(4000):
        made = table()
        share = (0.002, 0.01, 0.05, 0.2)[number % 4]
        for _ in range(300):
            rank = 1 + min(int(rng.expovariate(1 / 6)), 30)
            failed = rng.random() < share
            count(made, rank, in_time=not failed, failed=failed)
        found += made.read_ceiling()
    assert found <= 4000 * constants.CHANCE + 3 * (4000 * constants.CHANCE) ** 0.5


@given(
    times_s=st.lists(
        st.sampled_from([0.0, 0.005, 0.05, 0.3, 1.0]) | st.floats(0.0, 1.0),
        min_size=1,
        max_size=4,
    ),
    arrivals=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(1, 120),
            st.integers(0, 12),
            st.sampled_from(["stored", "new", "other"]),
        ),
        min_size=1,
        max_size=25,
    ),
)
@settings(max_examples=60, deadline=None)
def test_if_answers_never_get_slower_nor_fail_nothing_is_ever_limited_shed_or_stored(
    times_s: list[float], arrivals: list[tuple[int, int, int, str]]
) -> None:
    """Whatever arrives: any number at once, GETs with and without a stored response, and other
    methods. A GET may wait for the pace and then goes upstream; the circuit stays closed."""
    driver = Driver()
    due: list[tuple[float, int, Permit]] = []
    seen: list[Permit] = []

    def note_started() -> None:
        for permit in driver.in_flight:
            if permit not in known:
                known.add(permit)
                heappush(due, (permit.started_at + took(permit), len(known), permit))

    def took(permit: Permit) -> float:
        return times_s[int(permit.key) % len(times_s)]

    known: set[Permit] = set()

    def tick() -> None:
        until = driver.now + TICK_S
        while due and due[0][0] <= until:
            at, _, permit = heappop(due)
            driver.now = max(driver.now, at)
            driver.finish(permit)
            note_started()
        driver.tick(until - driver.now)
        note_started()

    for route, number, ticks, what in arrivals:
        for _ in range(number):
            decision = driver.admit(
                Kind.OTHER if what == "other" else Kind.GET,
                b"%d" % route,
                route=(b"OTHER /%d" if what == "other" else b"GET /%d") % (route % len(times_s)),
                stored=1.0 if what == "stored" else None,
            )
            assert isinstance(decision, Permit), "nothing is shed or refused"
            seen.append(decision)
        note_started()
        for _ in range(ticks):
            tick()
    for _ in range(200):
        if not driver.in_flight and not driver.queued:
            break
        tick()
    assert not driver.transitions
    assert not driver.answered
    assert not driver.timed_out
    assert all(permit.phase is Phase.DONE for permit in seen)
    assert driver.breaker.circuit.state is State.CLOSED


def test_one_client_cannot_open_the_circuit() -> None:
    """Two of its failures count while others are answered well; those of three clients open it."""
    driver = Driver(BreakerSettings())

    def fail(client: int) -> None:
        permit = driver.breaker.admit(driver.now, Kind.GET, b"GET /bad", b"/bad", None, client)
        assert isinstance(permit, Permit)
        driver.start(permit)
        driver.finish(permit, Outcome.ERROR)

    def pass_(client: int) -> None:
        permit = driver.breaker.admit(driver.now, Kind.GET, b"GET /bad", b"/g", None, client)
        assert isinstance(permit, Permit)
        driver.start(permit)
        driver.finish(permit)

    pass_(1)
    for _ in range(50):
        fail(7)
    assert driver.breaker.circuit.state is State.CLOSED
    for client in range(2, 20):
        if driver.breaker.circuit.state is State.OPEN:
            break
        fail(client)
    assert driver.breaker.circuit.state is State.OPEN
