"""The demand of a client is that in all workers together."""

import pytest

from retter.breaker import constants
from retter.breaker.demand import DemandTable
from retter.breaker.fairness import Fairness
from retter.judgement.demand import SharedDemand
from retter.judgement.memory import DEMANDS_MAX, Memory, bytes_needed

BIG = (1 << 56) - 3  # a client's number has 56 bits
CRAWLER = -5


def _tables(workers: int = 2) -> tuple[Memory, list[SharedDemand]]:
    memory = Memory(bytearray(bytes_needed(workers)), workers)
    return memory, [SharedDemand() for _ in range(workers)]


def _exchange(memory: Memory, tables: list[SharedDemand], now: float) -> None:
    everybody = range(len(tables))
    for index in everybody:
        tables[index].tell(memory, index, now)
    for index in everybody:
        tables[index].hear(memory, [one for one in everybody if one != index], now)


def test_what_a_client_asks_of_several_workers_is_added_up() -> None:
    """Wherever its connections come to."""
    memory, (one, other) = _tables()
    one.note(BIG, 2.0, 10.0)
    other.note(BIG, 3.0, 10.0)
    other.note(7, 1.0, 10.0)
    _exchange(memory, [one, other], 10.0)
    for table in (one, other):
        assert table.demand_of(BIG, 10.0) == 5.0
        assert table.demand_of(7, 10.0) == 1.0
        assert table.demands(10.0) == [1.0, 5.0]
    later = 10.0 + constants.DEMAND_HALF_LIFE_S
    assert one.demand_of(BIG, later) == pytest.approx(2.5)
    one.hear(memory, [1], later)
    assert one.demand_of(BIG, later) == pytest.approx(2.5), "told at a time, and decayed since"


def test_the_fair_share_is_that_of_one_table_which_sees_all() -> None:
    """However the clients are spread."""
    memory, tables = _tables(3)
    whole = DemandTable()
    for client in range(1, 60):
        for part in range(client % 5 + 1):
            demand = 0.1 + client % 7
            table = tables[(client + part) % 3]
            for one in (table, whole):
                one.note(client, demand, 5.0)
                one.gave(client, demand / 3, 5.0)
    _exchange(memory, tables, 5.0)
    share = whole.fair_share(whole.demands(5.0), 5.0)
    for table in tables:
        assert table.demands(5.0) == pytest.approx(whole.demands(5.0))
        assert table.given(5.0) == pytest.approx(whole.given(5.0))
        assert table.fair_share(table.demands(5.0), 5.0) == pytest.approx(share)


def test_clients_that_are_too_many_to_be_told_one_by_one_are_told_as_a_sum() -> None:
    """The heaviest are told; the share of the others is taken off what was given."""
    memory, (one, other) = _tables()
    for client in range(1, DEMANDS_MAX + 11):
        one.note(client, float(client), 1.0)
        one.gave(client, 2000.0, 1.0)
    _exchange(memory, [one, other], 1.0)
    assert len(other.demands(1.0)) == DEMANDS_MAX
    assert other.demand_of(10, 1.0) == 0.0
    assert other.demand_of(11, 1.0) == 11.0
    assert other._removed(1.0) == pytest.approx(sum(range(1, 11)))


def test_crawlers_are_told_to_nobody_and_a_worker_that_ended_is_forgotten() -> None:
    """A crawler is heavy by its word."""
    memory, (one, other) = _tables()
    one.note(CRAWLER, 9.0, 1.0)
    one.note(4, 1.0, 1.0)
    _exchange(memory, [one, other], 1.0)
    assert other.demands(1.0) == [1.0]
    assert other.demand_of(CRAWLER, 1.0) == 0.0
    other.hear(memory, [], 1.0)
    assert other.demands(1.0) == []


def test_a_worker_without_clients_knows_what_is_too_much() -> None:
    """It is that of all: the first request of a heavy client that comes to it is a heavy one."""
    memory, (one, other) = _tables()
    own, idle = Fairness(b"secret", 0.0), Fairness(b"secret", 0.0)
    own.demand, idle.demand = one, other
    assert one.is_empty and other.is_empty
    for client in range(1, 9):
        one.note(client, 0.5, 1.0)
        one.gave(client, 0.5, 1.0)
    one.note(9, 400.0, 1.0)
    _exchange(memory, [one, other], 1.0)
    assert not other.is_empty
    for now in (1.0, 1.0 + constants.FAIR_SHARE_EVERY_S):
        for fairness in (own, idle):
            fairness.tick(now, 1.0, 0.1, enough=False)
    assert idle.limit_s == pytest.approx(own.limit_s) and idle.limit_s < 400.0
    assert idle.is_heavy(9, now)
