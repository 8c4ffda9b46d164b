"""Pieces of bodies that wait in memory: many small ones take no more than their octets."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.buffers import PIECE_BYTES_MIN, add_piece
from retter.proxy.delivery import Delivery
from tests.support.harness import FakeProxy, body_of, get


@given(st.lists(st.binary(max_size=2000), max_size=40))
def test_pieces_are_kept_in_order(data: list[bytes]) -> None:
    pieces: list[bytes] = []
    for piece in data:
        add_piece(pieces, piece)
    assert b"".join(pieces) == b"".join(data)
    assert all(len(piece) >= PIECE_BYTES_MIN for piece in pieces[:-1])


def test_a_large_piece_is_not_copied() -> None:
    pieces: list[bytes] = []
    large = b"x" * PIECE_BYTES_MIN
    add_piece(pieces, large)
    add_piece(pieces, large)
    assert pieces[0] is pieces[1] is large


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_body_in_very_small_pieces(size: int) -> None:
    """It takes hardly more memory than one that comes whole, on either side."""
    octets = 20_000
    body = bytes(n % 251 for n in range(octets))
    pieces = [body[at : at + size] for at in range(0, octets, size)]
    proxy = FakeProxy()
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % octets)
    for piece in pieces[:-1]:
        client.protocol.data_received(piece)
    kept = client.protocol.body._kept
    assert sum(map(sys.getsizeof, kept)) + sys.getsizeof(kept) < 1.1 * octets
    client.sends(pieces[-1])
    assert body_of(proxy.upstream.received()) == body

    visitor = proxy.client(get())
    upstream = proxy.upstream
    upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % octets)
    for piece in pieces[:-1]:
        upstream.protocol.data_received(piece)
    (delivery,) = [one for one in proxy.services.exchanges if isinstance(one, Delivery)]
    copy = delivery._relay._copy or []
    assert octets // 2 < sum(map(len, copy)) < octets
    assert sum(map(sys.getsizeof, copy)) + sys.getsizeof(copy) < 1.1 * octets
    upstream.sends(pieces[-1])
    assert body_of(visitor.received()) == body
