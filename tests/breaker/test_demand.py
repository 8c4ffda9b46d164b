"""The table of the clients' demand: bounded, decaying, with constant cost for each request."""

import sys
from math import inf
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.breaker import constants
from retter.breaker.demand import NOBODY, DemandTable
from tests.support.compiled import counts_lines

HALF_S = constants.DEMAND_HALF_LIFE_S
# The client, its demand, and the time until the next request.
ASKED = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.floats(0.001, 2.0, allow_nan=False),
        st.sampled_from([0.0, 0.05, 1.0, 30.0]),
    ),
    max_size=60,
)


@given(asked=ASKED)
def test_demand_decays_by_half(asked: list[tuple[int, float, float]]) -> None:
    """The table has the sum of all demand, each part decayed by its age."""
    table, now = DemandTable(), 0.0
    noted: list[tuple[int, float, float]] = []
    for client, work_s, wait_s in asked:
        table.note(client, work_s, now)
        noted.append((client, work_s, now))
        now += wait_s
    for client in range(1, 13):
        expected = sum(w * 0.5 ** ((now - at) / HALF_S) for who, w, at in noted if who == client)
        assert table.demand_of(client, now) == pytest.approx(expected, abs=1e-9)


@given(asked=ASKED, later_s=st.floats(0, 300))
@settings(max_examples=60)
def test_nobody_outlives_its_demand(asked: list[tuple[int, float, float]], later_s: float) -> None:
    """Once the table has been gone through, who is in it asks for something still."""
    table, now = DemandTable(), 0.0
    for client, work_s, wait_s in asked:
        table.note(client, work_s, now)
        table.call(client, f"10.0.0.{client}")
        now += wait_s
    now += later_s
    table.advance(now)
    for client in range(1, 13):
        kept = client in table
        assert kept == (table.demand_of(client, now) >= constants.DEMAND_LEAST_S)
        assert kept or not table.name_of(client)
        assert kept or not table._slots.get(client)


def test_the_table_is_bounded() -> None:
    """Any number of clients, and never more than there is room for; a MiB at most."""
    table = DemandTable()
    for client in range(1, 3 * constants.DEMAND_CLIENTS_MAX):
        table.note(client, 0.05, client / 1000)
        assert len(table) <= constants.DEMAND_CLIENTS_MAX
    assert len(table._keys) == constants.DEMAND_CLIENTS_MAX
    size = sys.getsizeof(table._slots) + sum(map(sys.getsizeof, table._slots))
    size += sum(map(sys.getsizeof, table._slots.values()))
    for client in table._slots:  # all of them ask for too much
        table.call(client, f"2001:db8:1234:5678::{client & 0xFFFF:x}")
    size += sys.getsizeof(table._names) + sum(map(sys.getsizeof, table._names))
    for column in (table._keys, table._demand, table._at, table._got):
        size += sys.getsizeof(column)
    assert size <= 1024 * 1024


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_heaviest_is_never_forgotten(seed: int) -> None:
    """However many clients come once, the one with the largest demand stays in the table."""
    table, rng = DemandTable(), Random(seed)
    now = 0.0
    table.note(1, 1.0, now)
    for _ in range(2 * constants.DEMAND_CLIENTS_MAX):
        now += 0.0001
        table.note(rng.randrange(2, 1 << 40), 0.05, now)
    assert table.demand_of(1, now) == pytest.approx(0.5 ** (now / HALF_S))


def test_the_fair_share_is_what_is_left_divided_evenly() -> None:
    """A client that asks for less delays nobody; the rest is shared (max-min fairness)."""
    table = DemandTable()
    for client, work_s in enumerate((1.0, 2.0, 8.0, 9.0), 1):
        table.note(client, work_s, 0.0)
        table.gave(client, min(work_s, 3.5), 0.0)
    assert table.fair_share(table.demands(0.0), 0.0) == pytest.approx(3.5, rel=1e-5)


def test_there_is_enough_for_all_who_got_what_they_asked_for() -> None:
    """Then nobody asks for too much."""
    table = DemandTable()
    assert table.fair_share(table.demands(0.0), 0.0) == 0.0
    for client in range(1, 5):
        table.note(client, client * 1.0, 0.0)
        table.gave(client, client * 1.0, 0.0)
    assert table.fair_share(table.demands(5.0), 5.0) == inf


def test_a_shortage_is_caused_by_those_who_ask_for_what_is_missing() -> None:
    """Four ask for 2 and one for 12, of which 8 is forwarded: 12 is missing."""
    table = DemandTable()
    for client in range(1, 5):
        table.note(client, 2.0, 0.0)
    table.note(5, 12.0, 0.0)
    table.gave(5, 8.0, 0.0)
    demands = table.demands(0.0)
    assert table.explains(demands, 2.0, 0.0), "the heavy one asks for all of it"
    assert not table.explains(demands, 12.0, 0.0), "nobody asks for more than 12"


def test_who_asks_for_a_little_more_than_many_others_causes_no_shortage() -> None:
    """A thousand ask for 1 and ten for 3; half is forwarded. Without the ten, much is missing."""
    table = DemandTable()
    for client in range(1, 1001):
        table.note(client, 1.0, 0.0)
    for client in range(1001, 1011):
        table.note(client, 3.0, 0.0)
    table.gave(1, 500.0, 0.0)
    assert not table.explains(table.demands(0.0), 2.0, 0.0)


def test_crawlers_by_their_word_have_no_share() -> None:
    """Their numbers are below 0."""
    table = DemandTable()
    table.note(-5, 3.0, 0.0)
    table.note(7, 2.0, 0.0)
    assert table.demands(0.0) == [2.0]


def test_a_client_that_is_not_known_is_not_counted() -> None:
    """All who are not known would be one."""
    table = DemandTable()
    assert table.note(NOBODY, 1.0, 0.0) == 0.0
    table.gave(NOBODY, 1.0, 0.0)
    assert not len(table)


@counts_lines
def test_a_request_costs_the_same_in_a_full_table() -> None:
    """Counts the lines of Python run for a new client: there is no loop over the others."""

    def lines_of_next(clients: int) -> int:
        table = DemandTable()
        for client in range(1, clients + 1):
            table.note(client, 0.05, 0.0)
        lines = 0

        def count(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal lines
            lines += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            table.note(1 << 40, 0.05, 0.1)
            table.gave(1 << 40, 0.05, 0.1)
        finally:
            sys.settrace(before)
        return lines

    full = constants.DEMAND_CLIENTS_MAX
    assert lines_of_next(full - 1) == lines_of_next(10)
    # One must go: the lightest of eight.
    assert lines_of_next(full) < lines_of_next(10) + 10 * constants.DEMAND_LOOKED_AT_FOR_ROOM
