"""Octets that wait on a connection: nothing is missed however they are cut, and little is done."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.errors import BadRequest
from retter.http.framing_rules import check_request_head, line_fault
from retter.http.read_buffer import ReadBuffer, end_of_head
from tests.support.compiled import counts_lines
from tests.support.harness import FakeProxy, get, reply, status_of
from tests.support.work import instructions_of

OCTETS = st.lists(
    st.sampled_from([b"\r", b"\n", b" ", b"\t", b"a", b":", b"\x00", b"\r\n", b"\r\n\r\n"]),
    max_size=14,
).map(b"".join)


@given(data=OCTETS, begin=st.integers(0, 3), cuts=st.lists(st.integers(1, 4)))
def test_heads_are_counted_as_if_all_had_come_at_once(
    data: bytes, begin: int, cuts: list[int]
) -> None:
    begin = min(begin, len(data))
    buffer = ReadBuffer(data[: begin + 1], begin)
    at = begin + 1
    for size in [*cuts, len(data)]:
        if at < len(data):
            buffer.add(data[at : at + size])
        at += size
        so_far = data[begin:at]
        heads = so_far.count(b"\r\n\r\n")
        assert len(buffer) == len(so_far)
        for least in (1, 2, 3):
            assert buffer.has_heads(least) is (heads >= least)
        octets, start = buffer.taken()
        assert octets[start:] == so_far
        assert buffer.begins_with_line_end is so_far.startswith(b"\r")


@given(data=OCTETS.filter(bool), begin=st.integers(0, 3), cuts=st.lists(st.integers(1, 4)))
def test_a_fault_is_found_as_soon_as_it_is_there(data: bytes, begin: int, cuts: list[int]) -> None:
    """As if all lines were looked at again with each octet."""
    begin = min(begin, len(data) - 1)
    first = max(begin + 1, len(data) // 3)
    if line_fault(data[begin:first]):
        return
    buffer = ReadBuffer(data[:first], begin, checked=True)
    at = first
    for size in [*cuts, len(data)]:
        if at >= len(data):
            return
        buffer.add(data[at : at + size])
        at += size
        if fault := line_fault(data[begin:at]):
            with pytest.raises(BadRequest):
                buffer.check(check_request_head)
            assert fault
            return
        buffer.check(check_request_head)


HEAD = get("/", headers={"X-A": "a" * 50, "X-B": "b \t c", "Cookie": "a=b"})


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n", b"\r\n" * 8])
def test_a_head_octet_by_octet(before: bytes) -> None:
    """Whatever stands before it, on a connection's first request and on its second."""
    proxy = FakeProxy()
    client = proxy.client()
    for _ in range(2):
        for octet in before + HEAD:
            client.sends(bytes([octet]))
        proxy.upstream.sends(reply())
        assert status_of(client.received()) == 200


@pytest.mark.parametrize("fault", [b"X: a\n", b"X: a\rb\r\n", b"X: a\r\n \r\n", b"X: \x00\r\n"])
def test_a_faulty_line_octet_by_octet(fault: bytes) -> None:
    """It is refused with its last octet at the latest: no end of the head is waited for."""
    proxy = FakeProxy()
    client = proxy.client()
    for octet in HEAD[:-2] + fault:
        client.sends(bytes([octet]))
    assert status_of(client.received()) == 400


def test_a_head_that_grows_too_large_octet_by_octet() -> None:
    proxy = FakeProxy(head_bytes_max=1024)
    client = proxy.client(HEAD[:-2])
    sent = len(HEAD) - 2
    while not client.closed:
        client.sends(b"x")
        sent += 1
    assert sent == 1025
    assert status_of(client.received()) == 431


def test_the_end_of_a_head_further_on() -> None:
    data = b"GET / HTTP/1.1\r\n\r\n" + HEAD
    assert end_of_head(data, len(HEAD), check_request_head, 18) == len(data)
    assert end_of_head(data[:-1], len(HEAD), check_request_head, 18) == 0
    with pytest.raises(BadRequest):
        end_of_head(data, len(HEAD) - 1, check_request_head, 18)


# -- what it costs --------------------------------------------------------------------------------


def _client_octets(octets: int) -> int:
    proxy = FakeProxy()
    client = proxy.client(get()[:-2])
    line = b"X: " + b"y" * octets
    return instructions_of(
        lambda: [client.protocol.data_received(line[at : at + 1]) for at in range(len(line))]
    )


def _upstream_octets(octets: int) -> int:
    proxy = FakeProxy()
    proxy.client(get())
    line = b"HTTP/1.1 200 OK\r\nX: " + b"y" * octets
    upstream = proxy.upstream.protocol
    return instructions_of(
        lambda: [upstream.data_received(line[at : at + 1]) for at in range(len(line))]
    )


@counts_lines
@pytest.mark.parametrize("receive", [_client_octets, _upstream_octets])
def test_an_octet_costs_the_same_however_many_came_before(receive: object) -> None:
    assert callable(receive)
    few, many = receive(1000), receive(4000)
    # Python 3.13 counts a few more lines for many: 4.2 times. What is quadratic would make it 16.
    assert many <= 4.3 * few


def _octets_looked_at(octets: int) -> int:
    """Return how many octets are searched and checked while as many come one by one."""
    looked_at = 0

    def check(data: bytes) -> None:
        nonlocal looked_at
        looked_at += len(data)

    buffer = ReadBuffer(b"a", checked=True)
    for _ in range(octets):
        buffer.add(b"a")
        assert not buffer.has_heads()
        buffer.check(check)
    return looked_at


def test_no_octet_is_checked_again_with_each_that_follows() -> None:
    assert _octets_looked_at(2000) <= 3 * 2000


@counts_lines
def test_small_requests_that_come_at_once() -> None:
    """Nothing is done with those that wait, each time that one is taken."""

    def cost(requests: int) -> int:
        proxy = FakeProxy()
        client = proxy.client()
        client.transport.reading = True
        client.sends(get() * requests)

        def answer() -> None:
            for _ in range(20):
                proxy.upstream.protocol.data_received(reply())

        return instructions_of(answer)

    assert cost(8000) <= 1.2 * cost(100)


def test_what_waits_is_not_copied_for_each_request() -> None:
    """The octets behind the present request are the very ones that were read."""
    proxy = FakeProxy()
    client = proxy.client()
    data = get() * 100
    client.sends(data)
    for _ in range(3):
        buffer = client.protocol.requests.buffer
        assert buffer.taken()[0] is data
        proxy.upstream.sends(reply())
    assert len(re.findall(b"HTTP/1.1 200 OK", client.received())) == 3


def test_octets_that_were_used_count_until_they_are_freed() -> None:
    """Else a client could make a buffer hold much and count little."""
    buffer = ReadBuffer(b"x" * 1000 + b"GET / HTTP/1.1", 1000)
    assert len(buffer) == 14 and buffer.memory_bytes == 1014
    buffer.add(b"\r\n")
    assert len(buffer) == buffer.memory_bytes == 16
