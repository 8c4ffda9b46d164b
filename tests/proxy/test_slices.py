"""Large stored bodies and clients that read slowly: bytes in order, whole, and no copies kept."""

from collections.abc import Iterable, Sized
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retter.breaker import Mode
from retter.proxy import slices
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.slices import SLICE_BYTES, copies
from tests.support.harness import FakePeer, FakeProxy, FakeTransport, get, reply

KIB = 1024
BODY = bytes(range(256)) * 4096  # 1 MiB
OTHER = b"other" * 60_000  # 300 KB: two slices


@pytest.fixture(autouse=True, params=["plain", "TLS", "uvloop"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of transport: two that copy, one that does not."""
    monkeypatch.setattr(slices, "ASYNCIO_COPIES", request.param != "uvloop")
    monkeypatch.setattr(SlowTransport, "can_write_eof", lambda _: request.param != "TLS")
    kind: str = request.param
    return kind


# Where one direction can be closed alone.
halves = pytest.mark.parametrize("kind", ["plain", "uvloop"], indirect=True)
# What is written at a time, and how many writes it takes.
SLICES = {"plain": (SLICE_BYTES, 16), "TLS": (SLICE_BYTES, 16), "uvloop": (len(BODY), 1)}


class SlowTransport(FakeTransport):
    """A transport whose peer takes so much and no more, until it reads on."""

    def __init__(self, protocol: Any, room: int) -> None:
        super().__init__(protocol)
        self.room = room
        self.pending = b""  # written and not taken: what a transport copies
        self.pending_max = 0
        self.paused = False
        self.wanted: list[str] = []  # to be done when all has been taken
        self.objects: list[object] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof_written and not self.wanted, "written after the end"
        self.objects.append(data)  # all that it is given
        self.pending += bytes(data)
        self._deliver()
        self.pending_max = max(self.pending_max, len(self.pending))
        if not self.paused and len(self.pending) > (self.high_water or 0):
            self.paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        parts = list(list_of_data)
        self.write(b"".join(parts))
        self.objects[-1:] = parts

    def _deliver(self) -> None:
        self.buffer += self.pending[: self.room]
        self.pending, self.room = self.pending[self.room :], max(0, self.room - len(self.pending))
        if not self.pending:
            wanted, self.wanted = self.wanted, []
            for what in wanted:
                getattr(super(), what)()

    def reads(self, size: int) -> None:
        """The peer takes so many more."""
        self.room += size
        self._deliver()
        if self.paused and len(self.pending) <= (self.high_water or 0) // 4 and not self._lost:
            self.paused = False
            self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.pending)

    def write_eof(self) -> None:
        self.wanted.append("write_eof")
        self._deliver()

    def close(self) -> None:
        self.wanted.append("close")
        self._deliver()


class Site:
    """A proxy that answers from the store: BODY at /, OTHER at /other, little at /small."""

    def __init__(self, **settings: Any) -> None:
        self.proxy = FakeProxy(**settings)
        client = self.proxy.client()
        for path, body in (("/", BODY), ("/other", OTHER), ("/small", b"small")):
            client.sends(get(path))
            self.proxy.upstream.sends(reply(body, headers={"ETag": f'"{len(body)}"'}))
        self.proxy.services.breaker.circuit.set_mode(self.proxy.loop.now, Mode.OPEN)
        client.resets()

    def client(self, sends: bytes, room: int = 0) -> "tuple[FakePeer, SlowTransport]":
        connection: Any = DownstreamConnection(self.proxy.services)
        transport = SlowTransport(connection, room)
        connection.connection_made(transport)
        peer = FakePeer(transport)
        self.proxy.clients.append(peer)
        peer.sends(sends)
        return peer, transport


def bodies_of(data: bytes) -> list[bytes]:
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        (length,) = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        assert len(rest) >= length, "cut"
        found.append(rest[:length])
        data = rest[length:]
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 400_000), max_size=12), st.integers(0, 2_000_000))
def test_however_it_is_read_it_is_whole_and_little_is_copied(
    kind: str, reads: list[int], room: int
) -> None:
    site = Site()
    _, transport = site.client(get() + get("/small") + get("/other"), room)
    for size in reads:
        transport.reads(size)
    transport.reads(10_000_000)
    assert bodies_of(transport.buffer) == [BODY, b"small", OTHER]
    assert transport.pending_max <= 64 * KIB + SLICES[kind][0] + KIB
    assert not transport.closing


def test_who_reads_at_once_is_written_to_at_once(kind: str) -> None:
    _, transport = Site().client(get(), 10_000_000)
    assert bodies_of(transport.buffer) == [BODY]
    assert len(transport.objects) == 1 + SLICES[kind][1], "the head, and the slices"
    assert copies(transport) is (kind != "uvloop")


def test_who_reads_nothing_is_written_little(kind: str) -> None:
    _, transport = Site().client(get())
    assert transport.pending_max <= 64 * KIB + SLICES[kind][0] + KIB


def test_all_readers_share_the_stored_bytes() -> None:
    site = Site()
    transports = [
        site.client(get(headers=headers), 3_000_000)[1] for headers in ({}, {"Range": "bytes=1-"})
    ]
    stored = site.proxy.services.store
    ((body,),) = [[b for b in stored.shelves._bodies.values() if len(b) == len(BODY)]]
    for transport in transports:
        written: list[Any] = [one for one in transport.objects if len(cast("Sized", one)) > 1000]
        assert sum(map(len, written)) >= len(BODY) - 1
        assert all(one is body or one.obj is body for one in written)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=1-", BODY[1:]),
        ("bytes=0-65535", BODY[:65536]),
        ("bytes=0-65536", BODY[:65537]),
        ("bytes=-70000", BODY[-70000:]),
        ("bytes=5-5", BODY[5:6]),
    ],
)
def test_parts_of_any_size(asked: str, expected: bytes) -> None:
    _, transport = Site().client(get(headers={"Range": asked}))
    for _ in range(30):
        transport.reads(50_000)
    assert bodies_of(transport.buffer) == [expected]


def test_a_client_that_asks_for_no_more_is_closed_after_the_body() -> None:
    site = Site()
    peer, transport = site.client(get(headers={"Connection": "close"}))
    for _ in range(4):
        transport.reads(200_000)
        assert not peer.closed
    transport.reads(10_000_000)
    assert bodies_of(transport.buffer) == [BODY]
    assert peer.closed
    peer.ends()
    assert transport.closing


@halves
@pytest.mark.parametrize("when", ["at once", "later", "at the end"])
@pytest.mark.parametrize("close", ["close", "keep-alive"])
def test_a_client_that_closes_its_sending_side_gets_all(when: str, close: str) -> None:
    site = Site()
    peer, transport = site.client(get(headers={"Connection": close}))
    if when == "at once":
        peer.ends()
    transport.reads(300_000)
    if when == "later":
        peer.ends()
    transport.reads(300_000)
    transport.reads(10_000_000)
    if when == "at the end":
        peer.ends()
    assert bodies_of(transport.buffer) == [BODY]
    assert peer.closed


@halves
def test_requests_sent_ahead_of_an_end() -> None:
    site = Site()
    peer, transport = site.client(get() + get("/small"))
    peer.ends()
    transport.reads(10_000_000)
    assert bodies_of(transport.buffer) == [BODY, b"small"]
    assert peer.closed


def test_a_client_that_leaves_or_takes_nothing() -> None:
    site = Site(write_timeout_s=60.0)
    gone, first = site.client(get())
    gone.resets()
    _, still = site.client(get())
    site.proxy.advance(62)
    assert still.aborted, "it has taken nothing for a minute"
    assert not site.proxy.services.clients.connections
    assert not first.buffer


def test_a_client_that_reads_slowly_has_its_time_again_and_again() -> None:
    site = Site(write_timeout_s=60.0)
    _, transport = site.client(get())
    for _ in range(40):
        site.proxy.advance(50)
        transport.reads(30_000)
    assert bodies_of(transport.buffer) == [BODY], "in half an hour"
    assert not transport.aborted


@pytest.mark.parametrize("kind", ["plain", "TLS"], indirect=True)
def test_a_connection_that_breaks_while_slices_are_written() -> None:
    """The rest of them is not offered to a transport that is closing."""
    site = Site()
    _, transport = site.client(get())
    writes = len(transport.objects)

    def breaks(data: Any) -> None:
        transport.objects.append(data)
        transport.closing = True

    transport.write = breaks  # type: ignore[method-assign]
    transport.reads(300_000)
    assert len(transport.objects) == writes + 1
    transport.lose(BrokenPipeError())
    assert not site.proxy.services.clients.connections


def test_a_failing_application_and_a_slow_reader() -> None:
    """The stored answer is written by an exchange that has its own end."""
    site = Site()
    site.proxy.services.breaker.circuit.set_mode(site.proxy.loop.now, Mode.AUTO)
    site.proxy.advance(60)
    _, transport = site.client(get())
    site.proxy.upstream.sends(reply(b"broken", status="500 Oh"))
    assert len(transport.pending) > 0
    assert not site.proxy.services.exchanges, "its place is free"
    transport.reads(10_000_000)
    assert bodies_of(transport.buffer) == [BODY]
    site.proxy.assert_at_rest()


def test_the_bytes_sent_are_counted_once() -> None:
    site = Site()
    before = site.proxy.services.counters.sent
    _, transport = site.client(get())
    transport.reads(10_000_000)
    assert site.proxy.services.counters.sent - before == len(transport.buffer)


def test_a_body_that_has_left_the_store_is_sent_to_its_end() -> None:
    site = Site()
    _, transport = site.client(get())
    site.proxy.services.store.invalidation.purge()
    transport.reads(10_000_000)
    assert bodies_of(transport.buffer) == [BODY]
