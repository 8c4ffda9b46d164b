"""Data after the last answer is dropped within limits of time and octets, at a limited rate."""

import pytest

from retter.proxy.lingering import (
    BYTES_PER_TICK,
    CLIENT_BYTES_PER_TICK,
    LINGER_BYTES_MAX,
    LINGER_S,
    LINGER_SILENCE_S,
    PIECE_BYTES_MIN,
    RESUMED_MAX,
    Leftover,
    LingerPace,
)
from retter.proxy.ticker import TICK_S
from tests.support.harness import (
    FakePeer,
    FakeProxy,
    get,
    reply,
    status_of,
)

PIECE = b"x" * (256 * 1024)
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"


def answered_early(proxy: FakeProxy) -> FakePeer:
    """A client that goes on with its upload although it has its answer."""
    client = proxy.client(UPLOAD)
    client.sends(b"x" * 300_000)  # more than is kept before it is passed on
    proxy.upstream.sends(reply(b"log in", status="401 Unauthorized"))
    assert status_of(client.received()) == 401
    assert client.transport.eof_written and not client.transport.aborted
    return client


def test_an_upload_that_goes_on_is_read_for_a_time() -> None:
    proxy = FakeProxy()
    client = answered_early(proxy)
    sent, began_at = 0, proxy.loop.now
    while sent < 30 * 2**20:
        if client.transport.reading:
            client.sends(PIECE)
            sent += len(PIECE)
        else:
            proxy.advance(TICK_S)
    assert not client.transport.aborted
    assert 1.0 < proxy.loop.now - began_at < 3.0, "paced, but not so that it takes for ever"
    proxy.advance(LINGER_SILENCE_S + 1.1)
    assert client.transport.aborted
    proxy.assert_at_rest()
    assert not proxy.services.clients.linger_pace


def test_it_ends_in_time_however_slowly_it_comes() -> None:
    proxy = FakeProxy()
    client = answered_early(proxy)
    began_at = proxy.loop.now
    while not client.transport.aborted:
        client.sends(b"x")
        proxy.advance(1.0)
    assert LINGER_S <= proxy.loop.now - began_at <= LINGER_S + 2.0


def test_it_ends_after_so_many_bytes() -> None:
    leftover = Leftover(0.0)
    assert leftover.drop(LINGER_BYTES_MAX)
    assert not leftover.drop(1)
    proxy = FakeProxy()
    client = answered_early(proxy)
    connection = client.protocol
    connection._leftover = Leftover(proxy.loop.now)
    assert connection._leftover.drop(LINGER_BYTES_MAX - 1)
    client.sends(b"x")
    assert not client.transport.aborted
    client.sends(b"x")
    assert client.transport.aborted


def test_a_client_that_does_not_take_its_answer_gains_no_time_by_sending() -> None:
    proxy = FakeProxy(write_timeout_s=5)
    client = proxy.client(UPLOAD)
    client.sends(b"x" * 300_000)
    client.transport.unsent = 100
    proxy.upstream.sends(reply(b"log in", status="401 Unauthorized"))
    for _ in range(7):
        assert not client.transport.aborted or proxy.loop.now > 1005
        client.sends(b"x")
        proxy.advance(1.0)
    assert client.transport.aborted


# -- the pace -----------------------------------------------------------------------------------


class Client:
    def __init__(self, pace: LingerPace) -> None:
        self.pace = pace
        self.leftover = Leftover(0.0)
        self.reading = True
        self.octets = 0
        self.pieces = 0

    def read_on(self) -> None:
        assert not self.reading
        self.reading = True

    def send(self, octets: int) -> None:
        assert self.reading
        self.octets += octets
        self.pieces += 1
        self.reading = self.pace.may_read_on(self, self.leftover, octets)


@pytest.mark.parametrize("octets", [1, 1460, PIECE_BYTES_MIN, 256 * 1024])
def test_one_client_has_its_share_of_each_tick(octets: int) -> None:
    pace = LingerPace()
    client = Client(pace)
    for tick in range(1, 4):
        while client.reading:
            client.send(octets)
        priced = max(octets, PIECE_BYTES_MIN)
        assert client.pieces == tick * CLIENT_BYTES_PER_TICK // priced
        pace.tick()
    assert client.reading and not pace


def test_all_of_them_share_what_there_is_and_take_turns() -> None:
    pace = LingerPace()
    clients = [Client(pace) for _ in range(3 * RESUMED_MAX)]
    for tick in range(200):
        before = sum(client.octets for client in clients)
        for _ in range(10):
            for client in clients:
                if client.reading:
                    client.send(len(PIECE))
        if tick:  # with the first, each may begin with a piece
            octets = sum(client.octets for client in clients) - before
            assert BYTES_PER_TICK <= octets <= 2 * BYTES_PER_TICK
        pace.tick()
        assert sum(client.reading for client in clients) == RESUMED_MAX
    shares = [client.octets for client in clients]
    assert max(shares) <= 2 * min(shares) + CLIENT_BYTES_PER_TICK


def test_who_is_gone_is_not_told_to_read_on() -> None:
    pace = LingerPace()
    client = Client(pace)
    while client.reading:
        client.send(len(PIECE))
    assert len(pace) == 1
    pace.forget(client)
    pace.tick()
    assert not client.reading and not pace


def test_visitors_are_served_while_it_goes_on() -> None:
    """Lingering connections are the first to give way when there is no room."""
    proxy = FakeProxy(connections_max=2, circuit="observe")
    lingers = answered_early(proxy)
    proxy.advance(0.1)
    assert not proxy.client().closed
    assert not proxy.client().closed
    assert lingers.transport.aborted


def test_the_last_answer_of_a_connection_is_not_cut_off_for_a_slow_reader() -> None:
    """Lingering begins when the answer has been taken, which may last as long as it goes on."""
    proxy = FakeProxy(write_timeout_s=10)
    client = proxy.client(get(headers={"Connection": "close"}))
    client.transport.unsent = 900_000
    proxy.upstream.sends(reply(b"x" * 900_000))
    for _ in range(3):
        proxy.advance(9)
        assert not client.transport.aborted
        client.transport.unsent -= 1
    proxy.advance(30)
    assert client.transport.aborted, "it has stopped reading"


def test_a_slow_reader_that_has_taken_its_last_answer_does_not_linger_long() -> None:
    """The last octets are given their time, then the connection ends."""
    proxy = FakeProxy(write_timeout_s=10)
    client = proxy.client(get(headers={"Connection": "close"}))
    client.transport.unsent = 900_000
    proxy.upstream.sends(reply(b"x" * 900_000))
    client.blocks()
    client.transport.unsent = 0
    client.unblocks()
    proxy.advance(4)
    assert client.transport.aborted
