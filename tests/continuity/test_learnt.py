"""The knowledge of a breaker, passed to the next one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.breaker import BreakerSettings, constants, sweep
from retter.breaker.circuit import Circuit
from retter.continuity.learnt import learnt, relearn


def breaker(now: float = 0.0) -> Circuit:
    return Circuit(BreakerSettings(), now)


def taught() -> Circuit:
    """One that knows an application of eight workers that fails above sixteen in flight."""
    one = breaker()
    one.limit.set_limit(11.0)
    one.limit.work_rate = 7.5
    one.limit.peak_work_rate = 8.0
    one.baseline.cold = None
    one.baseline.mean_s, one.baseline.samples = 0.02, 500
    for name, mean_s in ((b"GET /a", 0.01), (b"GET /\xe4", 0.5)):
        route = one.routes.get(name, 0.0)
        route.baseline.mean_s, route.baseline.samples = mean_s, 100
    for rank in range(1, 17):
        one.table.by_rank[rank].in_time += 30.0
    for rank in range(17, 40):
        one.table.by_rank[rank].failed += 30.0
    one.table.read_proven()
    one.table.read_ceiling()
    one.set_cap()
    assert one.table.ceiling == 16.0
    return one


def written(one: Circuit) -> Any:
    return json.loads(json.dumps(learnt(one)))


def test_the_next_process_begins_where_the_last_ended() -> None:
    before, after = taught(), breaker(50.0)
    assert relearn(after, written(before), 0.0, 50.0)
    assert after.limit.limit == 11.0
    assert after.limit.closed_limit == before.limit.closed_limit
    assert (after.baseline.mean_s, after.baseline.samples) == (0.02, 500)
    assert after.baseline.cold is None
    assert after.routes.get(b"GET /\xe4", 50.0).baseline.mean_s == 0.5
    assert after.table.ceiling == before.table.ceiling
    assert after.table.proven == before.table.proven
    assert after.cap == before.cap


def test_endings_fade_while_nobody_is_there() -> None:
    before, after = taught(), breaker()
    assert relearn(after, written(before), constants.TABLE_HALF_LIFE_S, 0.0)
    assert after.table.by_rank[3].in_time == pytest.approx(before.table.by_rank[3].in_time / 2)


def test_a_cold_start_stays_cold() -> None:
    before, after = breaker(), breaker()
    assert relearn(after, written(before), 0.0, 0.0)
    assert after.baseline.cold is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(said=JSON)
def test_what_is_something_else_changes_nothing(said: Any) -> None:
    one = breaker()
    before = learnt(one)
    assert not relearn(one, said, 0.0, 0.0)
    assert learnt(one) == before


@given(name=st.sampled_from(sorted(learnt(breaker()))), value=JSON)
def test_one_part_that_is_something_else_breaks_nothing(name: str, value: Any) -> None:
    one = breaker()
    relearn(one, {**written(taught()), name: value}, 0.0, 0.0)
    assert 1.0 <= one.limit.limit <= constants.RANK_MAX
    assert one.cap >= 1.0
    sweep.tick(one, 1.0)
