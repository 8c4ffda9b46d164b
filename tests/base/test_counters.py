"""The counters: by reason and class of status, by bucket, and their sums."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.counters import (
    _REFUSALS,
    LATENCY_BOUNDS_S,
    Counters,
    Histogram,
    Totals,
    by_reason,
    cells,
    estimate,
    quantile,
    totals,
)
from retter.base.reason import Reason
from retter.breaker import Mode
from retter.breaker.permit import REJECTION_REASONS
from tests.support.harness import FakeProxy, get, reply


@pytest.mark.parametrize("status", ["600 What", "999 What"])
def test_a_status_that_is_none_is_counted_as_a_failure(status: str) -> None:
    """It was counted under another reason (RFC 9110 section 15)."""
    proxy = FakeProxy()
    client = proxy.client(get("/"))
    proxy.upstream.sends(reply(status=status))
    assert client.received().startswith(b"HTTP/1.1 " + status[:3].encode())
    assert list(cells(proxy.services.counters.forwarded_get)) == [(Reason.ADMITTED, 5, 1)]


def test_bytes_of_clients_are_counted() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"x" * 100_000))
    client.sends(b"nonsense\r\n\r\n")
    sent = len(get()) + len(b"nonsense\r\n\r\n")
    counters = proxy.services.counters
    assert (counters.received, counters.sent) == (sent, len(client.written()))


def test_quantiles() -> None:
    bounds = (1.0, 2.0, 4.0)
    assert quantile(bounds, [0, 0, 0, 0], 0.5) is None
    assert quantile(bounds, [10, 0, 0, 0], 0.5) == 0.5
    assert quantile(bounds, [5, 0, 5, 0], 0.75) == 3.0
    assert quantile(bounds, [0, 0, 0, 5], 0.5) == 4.0, "no more is known"


@pytest.mark.parametrize(("share", "enough"), [(0.5, 5), (0.9, 10), (0.99, 100)])
def test_too_few_values_have_no_quantile(share: float, enough: int) -> None:
    assert quantile((1.0,), [enough - 1, 0], share) is None
    assert quantile((1.0,), [enough, 0], share) == pytest.approx(share)
    assert estimate((1.0,), [1, 0], share) == pytest.approx(share)


@given(values=st.lists(st.floats(0, 20), min_size=1, max_size=50), share=st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    histogram = Histogram(LATENCY_BOUNDS_S)
    for value in values:
        histogram.add(value)
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    found = estimate(LATENCY_BOUNDS_S, histogram.counts, share)
    upper = next(bound for bound in LATENCY_BOUNDS_S if bound >= true)
    lower = max([0.0, *[bound for bound in LATENCY_BOUNDS_S if bound < upper]])
    assert found is not None and lower - 1e-9 <= found <= upper + 1e-9


def test_requests_are_counted_by_status_and_reason() -> None:
    proxy = FakeProxy(connect_hold_s=0)
    counters = proxy.services.counters
    client = proxy.client(get())
    proxy.upstream.sends(reply(headers={"ETag": '"1"'}))
    client.sends(get("/gone"))
    proxy.upstream.sends(reply(status="404 Not Found"))
    client.sends(b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n")
    proxy.upstream.sends(b"HTTP/1.1 204 No Content\r\n\r\n")
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    client.sends(get(headers={"If-None-Match": '"1"'}))
    proxy.upstream.resets()
    proxy.auto_accept = False
    client.sends(b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n")
    proxy.refuse()
    client.sends(b"nonsense\r\n\r\n")
    assert list(cells(counters.forwarded_get)) == [(Reason.ADMITTED, 2, 1), (Reason.ADMITTED, 4, 1)]
    assert list(cells(counters.forwarded_other)) == [(Reason.ADMITTED, 2, 1)]
    assert list(cells(counters.stored)) == [(Reason.FORCED_OPEN, 3, 1)]
    assert list(cells(counters.own_other)) == [(Reason.CONNECT_REFUSED, 5, 1)]
    assert list(cells(counters.own_unread)) == [(Reason.BAD_REQUEST, 4, 1)]
    assert list(cells(counters.own_get)) == []


def test_a_value_on_a_bound_belongs_to_the_bucket_below() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.add(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 7.5


def test_histograms_are_added_and_taken_apart() -> None:
    early, late = Histogram((1.0,)), Histogram((1.0,))
    early.add(0.5)
    late.add(0.25)
    late.add(4.0)
    late.merge(early)
    assert (late.counts, late.total) == ([2, 1], 4.75)
    left = late.without(early)
    assert (left.counts, left.total, left.bounds) == ([1, 1], 4.25, (1.0,))
    assert late.counts == [2, 1], "it is a copy"


def test_counts_are_listed_by_reason_and_class() -> None:
    counters = Counters()
    counters.count_forwarded(True, Reason.ADMITTED, 200)
    counters.count_forwarded(True, Reason.ADMITTED, 204)
    counters.count_forwarded(True, Reason.ADMITTED, 503)
    counters.count_forwarded(True, Reason.PROBE, 304)
    counters.count_forwarded(False, Reason.ADMITTED, 201)
    assert list(cells(counters.forwarded_get)) == [
        (Reason.ADMITTED, 2, 2),
        (Reason.ADMITTED, 5, 1),
        (Reason.PROBE, 3, 1),
    ]
    assert by_reason(counters.forwarded_get) == {"admitted": 3, "probe": 1}
    assert by_reason(counters.forwarded_other) == {"admitted": 1}


@pytest.mark.parametrize(
    ("is_get", "name"), [(True, "own_get"), (False, "own_other"), (None, "own_unread")]
)
def test_own_answers_are_counted_by_kind_of_request(is_get: bool | None, name: str) -> None:
    counters = Counters()
    counters.count_own(is_get, Reason.BAD_REQUEST, 400)
    counted = {
        kind: list(cells(getattr(counters, kind)))
        for kind in ("own_get", "own_other", "own_unread")
    }
    assert counted.pop(name) == [(Reason.BAD_REQUEST, 4, 1)]
    assert list(counted.values()) == [[], []]


def test_every_request_is_in_one_total() -> None:
    """A refused request is no failure, though its status is a 503."""
    counters = Counters()
    for status in (200, 404, 500):
        counters.count_forwarded(True, Reason.ADMITTED, status)
    counters.count_forwarded(False, Reason.ADMITTED, 502)
    counters.stored[Reason.OPEN.row + 2] += 3
    counters.count_own(True, Reason.QUEUE_FULL, 503)
    counters.refused[Reason.QUEUE_FULL] += 1
    counters.count_own(False, Reason.CONNECT_REFUSED, 502)
    assert totals(counters) == Totals(fresh=2, stored=3, refused=1, failed=3)


def test_each_rejection_counts_as_refused_and_not_as_a_failure() -> None:
    """Else the figures would say that the application has failed when RETTER limits."""
    assert set(REJECTION_REASONS) <= set(_REFUSALS)
