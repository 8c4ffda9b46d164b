"""How long RETTER itself works on requests: which connections are measured, and what is counted."""

import pytest

from retter.base.counters import Histogram
from retter.proxy import sampling
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.sampling import (
    MEASURED_OF,
    MeasuredDownstream,
    MeasuredUpstream,
    client_connection_class,
)
from tests.support.admin import LimitedTransport, admin_of
from tests.support.harness import FakePeer, FakeProxy, FakeTransport, get, reply


def test_one_connection_of_some_reads_the_clock() -> None:
    with admin_of() as admin:
        services = admin.proxy.services
        assert client_connection_class(services) is MeasuredDownstream
        assert client_connection_class(services) is DownstreamConnection
        assert admin.state()["overhead_us"] == {"p50": None, "p99": None}
        connection = MeasuredDownstream(services)
        transport = LimitedTransport(connection)
        connection.connection_made(transport)
        FakePeer(transport).sends(get() + get("/again"))
        admin.proxy.upstream.sends(reply())
        assert sum(services.counters.overhead_request.counts) == 1, "the second waited its turn"
        assert sum(services.counters.overhead_answer.counts) == 1
        assert admin.state()["overhead_us"]["p50"] is None, "one is no median"
        admin.proxy.upstream.sends(reply())
        for _ in range(5):
            FakePeer(transport).sends(get())
            admin.proxy.upstream.sends(reply())
        assert 0 < admin.state()["overhead_us"]["p50"] < 1_000_000


def test_the_first_of_sixteen_is_measured() -> None:
    services = FakeProxy().services
    made = [client_connection_class(services) for _ in range(2 * MEASURED_OF)]
    measured = [number for number, kind in enumerate(made) if kind is MeasuredDownstream]
    assert measured == [0, MEASURED_OF]
    assert set(made) == {MeasuredDownstream, DownstreamConnection}


def measured(proxy: FakeProxy) -> FakePeer:
    connection = MeasuredDownstream(proxy.services)
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    peer = FakePeer(transport)
    proxy.clients.append(peer)
    return peer


def test_the_time_is_shared_by_the_requests_of_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pipelined requests that the store answers take a third of the time each."""
    proxy = FakeProxy(circuit="open")
    client = measured(proxy)
    client.sends(get())
    proxy.upstream.sends(reply(b"good"))
    overhead = proxy.services.counters.overhead_request = Histogram((0.5, 1.0))
    clock = iter([10.0, 10.75])
    monkeypatch.setattr(sampling, "perf_counter", lambda: next(clock))
    client.sends(get() * 3)
    assert client.received().count(b"good") == 4
    assert (overhead.counts, overhead.total) == ([1, 0, 0], 0.25)


def test_octets_that_begin_no_request_are_not_counted() -> None:
    proxy = FakeProxy()
    client = measured(proxy)
    client.sends(get()[:10])
    assert sum(proxy.services.counters.overhead_request.counts) == 0
    client.sends(get()[10:])
    assert sum(proxy.services.counters.overhead_request.counts) == 1


def test_the_first_piece_of_an_answer_is_measured() -> None:
    """Not the rest, nor what an idle connection receives."""
    proxy = FakeProxy()
    proxy.client(get())
    assert isinstance(proxy.upstream.protocol, MeasuredUpstream), "the first one that is dialled"
    counts = proxy.services.counters.overhead_answer.counts
    answer = reply(b"x" * 100)
    proxy.upstream.sends(answer[:-50])
    proxy.upstream.sends(answer[-50:])
    assert sum(counts) == 1
    proxy.upstream.sends(b"nobody has asked")
    assert sum(counts) == 1
