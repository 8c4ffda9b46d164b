"""Every limit on what a client may cost: its default, and what happens one beyond it."""

from collections.abc import Callable
from typing import Any

import pytest

from retter.config.settings import Settings
from tests.support.harness import FakeProxy, get, reply, status_of

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


DEFAULTS: dict[str, float] = {
    "head_bytes_max": 64 * 1024,
    "head_fields_max": 128,
    "target_bytes_max": 16 * 1024,
    "request_body_bytes_max": 0,
    "head_timeout_s": 10.0,
    "body_idle_timeout_s": 30.0,
    "body_min_rate_bytes": 500,
    "keep_alive_s": 75.0,
    "write_timeout_s": 60.0,
    "write_buffer_bytes_max": 64 * 1024,
    "requests_per_connection_max": 0,
    "connections_max": 12_000,
    "connections_per_address_max": 0,
    "pipeline_max": 32,
}


def test_the_defaults() -> None:
    settings = Settings(upstream=":1")
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


def padded_to(octets: int) -> bytes:
    head = get(headers={"X-Pad": ""})
    return get(headers={"X-Pad": "x" * (octets - len(head))})


def with_fields(number: int) -> bytes:
    return get(headers={f"X-{n}": "y" for n in range(number - 1)})  # and Host


def with_target(octets: int) -> bytes:
    return get("/" + "x" * (octets - 1))


def chunks(octets: int) -> bytes:
    return CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (octets, b"x" * octets)


SIZES: list[tuple[str, int, Callable[[int], bytes], int]] = [
    ("head_bytes_max", 2048, padded_to, 431),
    ("head_fields_max", 20, with_fields, 431),
    ("target_bytes_max", 200, with_target, 414),
    ("request_body_bytes_max", 100, lambda octets: POST % octets + b"x" * octets, 413),
    ("request_body_bytes_max", 100, chunks, 413),
]


# RFC 9110 section 15.5, RFC 6585 section 5
PHRASES = {
    413: "Content Too Large", 414: "URI Too Long", 431: "Request Header Fields Too Large",
}  # fmt: skip


@pytest.mark.parametrize(("setting", "limit", "request_of", "status"), SIZES)
def test_up_to_its_limit_and_no_further(
    setting: str, limit: int, request_of: Callable[[int], bytes], status: int
) -> None:
    limits: dict[str, Any] = {setting: limit}
    proxy = FakeProxy(**limits)
    client = proxy.client(request_of(limit))
    proxy.upstream.sends(reply(b"ok"))
    assert status_of(client.received()) == 200
    over = proxy.client(request_of(limit + 1))
    answer = over.received()
    assert status_of(answer) == status
    assert answer.split(b"\r\n")[0].decode() == f"HTTP/1.1 {status} {PHRASES[status]}"
    assert over.closed
    proxy.settle()
    proxy.assert_at_rest()


TIMES: list[tuple[str, dict[str, float], bytes, int]] = [
    ("a head", {"head_timeout_s": 3}, b"GET / HTTP/1.1\r\nHo", 408),
    ("a head in drops", {"head_timeout_s": 3}, b"GET / HTTP/1.1\r\n drops", 408),
    ("nothing", {"head_timeout_s": 3}, b"", 0),
    ("a body that stops", {"body_idle_timeout_s": 3}, POST % 9 + b"x", 408),
    ("an idle connection", {"keep_alive_s": 3, "head_timeout_s": 3}, get(), 200),
]


@pytest.mark.parametrize(("what", "limit", "sends", "status"), TIMES, ids=[row[0] for row in TIMES])
def test_in_its_time_and_no_later(
    what: str, limit: dict[str, Any], sends: bytes, status: int
) -> None:
    proxy = FakeProxy(**limit)
    drops = what.endswith("drops")
    client = proxy.client(sends.removesuffix(b" drops"))
    if status == 200:
        proxy.upstream.sends(reply(b"ok"))
    for _ in range(5):
        proxy.advance(0.5)
        assert not client.closed
        if drops:
            client.sends(b"X: y\r\n")
    proxy.advance(2.5)
    assert client.closed
    answer = client.received()
    assert (status_of(answer) if answer else 0) == status
    proxy.advance(3)
    assert client.transport.closing
    assert proxy.proxy.stats()["connections"]["open"] == 0
    proxy.assert_at_rest()
