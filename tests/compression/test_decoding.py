"""Encoded responses for clients that do not take the coding: once, off the loop, within bounds."""

import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from retter.breaker import Mode
from retter.compression import coding, compressors, decoding
from retter.compression.decoding import INLINE_BYTES_MAX, JOBS_MAX
from tests.support.harness import (
    FakePeer,
    FakeProxy,
    body_of,
    field,
    get,
    reply,
    status_of,
)

MIB = 1024 * 1024
GZIP = {"Accept-Encoding": "gzip"}


def text(size: int, seed: int = 1) -> bytes:
    """Return text that gzip makes five times as small, as it does HTML."""
    words = random.Random(seed)
    return b" ".join(b"%06x" % words.randrange(1 << 12) for _ in range(size // 7))


PAGE = text(100_000)
PACKED = gzip.compress(PAGE)
BOMB = gzip.compress(bytes(8 * MIB))
SMALL = text(8_000)


def packed(body: bytes = PACKED, **headers: str) -> bytes:
    return reply(body, headers={"Content-Type": "text/html", "Content-Encoding": "gzip", **headers})


class Site:
    """A proxy that has stored an encoded page at /, and decides from the store alone."""

    def __init__(self, answer: bytes = b"", *, is_open: bool = True, **settings: Any) -> None:
        self.proxy = FakeProxy(connect_hold_s=0, **settings)
        self.counts: list[int] = []
        self.stores(answer or packed())
        if is_open:
            self.opens()

    def opens(self, mode: Mode = Mode.OPEN) -> None:
        self.proxy.services.breaker.circuit.set_mode(self.proxy.loop.now, mode)

    def stores(self, answer: bytes, request: bytes = b"") -> None:
        client = self.proxy.client(request or get(headers=GZIP))
        self.proxy.upstream.sends(answer)
        client.resets()
        self.proxy.advance(0.05)

    def asks(self, request: bytes = b"") -> FakePeer:
        return self.proxy.client(request or get())

    @property
    def jobs(self) -> int:
        return self.proxy.workers.waiting

    def works(self, *, fail: bool = False) -> None:
        self.proxy.workers.work(fail=fail)
        self.proxy.settle()

    def at_rest(self) -> None:
        self.proxy.assert_at_rest()
        assert not self.proxy.services.decoding._waiters


# Once, for all


def test_all_who_wait_for_the_same_body_share_one_decoding() -> None:
    site = Site()
    clients = [site.asks() for _ in range(20)]
    assert [client.received() for client in clients] == [b""] * 20, "they wait"
    assert site.jobs == 1
    site.works()
    answers = {client.received() for client in clients}
    (answer,) = answers
    assert body_of(answer) == PAGE
    assert field(answer, "Content-Encoding") is None
    assert field(answer, "Vary") == "Accept-Encoding"
    assert field(answer, "Cache-Status") == "retter; hit; detail=forced-open"
    again = site.asks().received()
    assert body_of(again) == PAGE and site.jobs == 0, "it is kept"
    site.at_rest()


def test_it_is_kept_within_the_budget_and_goes_with_its_response() -> None:
    site = Site()
    before = site.proxy.services.store.stats()["bytes_used"]
    site.asks()
    site.works()
    store = site.proxy.services.store
    assert len(PAGE) < store.stats()["bytes_used"] - before < len(PAGE) + 1000
    store.invalidation.purge()
    assert store.stats()["bytes_used"] == 0


def test_who_takes_the_coding_gets_it_as_it_is_stored() -> None:
    site = Site()
    assert body_of(site.asks(get(headers=GZIP)).received()) == PACKED
    assert site.jobs == 0
    site.asks()
    site.works()
    answer = site.asks(get(headers=GZIP)).received()
    assert body_of(answer) == PACKED and field(answer, "Content-Encoding") == "gzip"
    assert site.jobs == 0, "nor is it compressed again"


def test_a_page_stored_again_unchanged_is_not_decoded_again() -> None:
    site = Site()
    site.asks()
    site.works()
    site.opens(Mode.AUTO)
    site.proxy.advance(30)
    site.stores(packed())
    site.opens()
    assert body_of(site.asks().received()) == PAGE
    assert site.proxy.services.store.stats()["unchanged"] == 1


def test_a_small_body_is_decoded_on_the_spot() -> None:
    small = gzip.compress(SMALL)
    assert len(small) <= INLINE_BYTES_MAX < len(PACKED)
    site = Site(packed(small))
    assert body_of(site.asks().received()) == SMALL
    assert site.jobs == 0


def test_a_body_of_many_members_is_none_for_the_spot() -> None:
    members = b"".join(gzip.compress(b"%d" % number) for number in range(17))
    site = Site(packed(members))
    client = site.asks()
    assert client.received() == b"" and site.jobs == 1
    site.works()
    assert body_of(client.received()) == b"".join(b"%d" % number for number in range(17))


def test_an_empty_body() -> None:
    assert body_of(Site(packed(b"")).asks().received()) == b""


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"Range": "bytes=0-4"}, 206, PAGE[:5]),
        ({"Range": "bytes=1-"}, 206, PAGE[1:]),
        ({"If-None-Match": 'W/"a"'}, 304, b""),
        ({}, 200, PAGE),
    ],
)
def test_conditions_and_ranges_are_about_the_decoded_body(
    headers: dict[str, str], status: int, body: bytes
) -> None:
    site = Site(packed(ETag='"a"'))
    client = site.asks(get(headers=headers))
    site.works()
    answer = client.received()
    assert (status_of(answer), body_of(answer)) == (status, body)
    if status == 200:
        assert field(answer, "ETag") == 'W/"a"'


# Not too much


def test_what_decodes_to_much_more_than_its_size_counts_as_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[int] = []
    decoded = compressors.decoded

    def note(body: bytes, name: bytes, bytes_max: int, members_max: int) -> bytes | None:
        limits.append(bytes_max)
        return decoded(body, name, bytes_max, members_max)

    monkeypatch.setattr(coding, "decoded", note)
    site = Site(packed(BOMB))
    clients = [site.asks() for _ in range(3)]
    site.works()
    for client in clients:
        answer = client.received()
        assert status_of(answer) == 503
        assert int(field(answer, "Retry-After") or 0) >= 1
    assert limits == [16 * len(BOMB)], "not decoded beyond that"
    client = site.asks()
    assert len(limits) == 1 and site.jobs == 0, "nor tried again"
    site.proxy.upstream.sends(packed(BOMB))
    assert body_of(client.received()) == BOMB, "forwarded, as who has nothing stored may be"
    assert body_of(site.asks(get(headers=GZIP)).received()) == BOMB
    site.at_rest()


def test_too_much_to_do_is_no_reason_to_wait() -> None:
    site = Site()
    site.proxy.workers.waiting = JOBS_MAX
    assert status_of(site.asks().received()) == 503
    site.proxy.workers.waiting = 0
    client = site.asks()
    site.works()
    assert body_of(client.received()) == PAGE, "it was not for the body's sake"


def test_a_thread_without_memory_is_no_reason_never_to_try_again() -> None:
    site = Site()
    client = site.asks()
    site.works(fail=True)
    assert status_of(client.received()) == 503
    client.sends(get())
    site.works()
    assert body_of(client.received()) == PAGE
    site.at_rest()


def test_a_response_that_goes_meanwhile_is_still_given_to_who_waits() -> None:
    site = Site()
    client = site.asks()
    site.proxy.services.store.invalidation.purge()
    site.works()
    assert body_of(client.received()) == PAGE
    assert site.proxy.services.store.stats()["bytes_used"] == 0


# Clients that wait


def test_requests_that_come_meanwhile_are_answered_in_order() -> None:
    site = Site(is_open=False)
    site.stores(reply(b"small"), get("/small"))
    site.opens()
    client = site.asks(get() + get("/small") + get(headers=GZIP))
    client.sends(get())
    assert client.received() == b""
    site.works()
    first, *others = client.received().split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [body_of(answer) for answer in (first, *others)] == [PAGE, b"small", PACKED, PAGE]
    assert not client.closed
    site.at_rest()


def test_a_client_that_has_closed_its_sending_side_gets_its_answer() -> None:
    site = Site()
    client = site.asks()
    client.ends()
    assert not client.closed
    site.works()
    assert body_of(client.received()) == PAGE
    assert client.closed


def test_a_client_that_asks_for_no_more() -> None:
    site = Site()
    client = site.asks(get(headers={"Connection": "close"}))
    site.works()
    answer = client.received()
    assert body_of(answer) == PAGE and field(answer, "Connection") == "close"
    assert client.closed


def test_a_client_that_leaves(tmp_path: Path) -> None:
    site = Site(access_log=str(tmp_path / "log"))
    leaves, stays = site.asks(), site.asks()
    leaves.resets()
    assert site.proxy.services.counters.clients_gone == 0
    site.works()
    assert body_of(stays.received()) == PAGE
    assert leaves.received() == b""
    assert site.proxy.services.counters.clients_gone == 1
    site.proxy.advance(0.1)
    lines = (tmp_path / "log").read_text().splitlines()[-2:]
    assert '"status": 0, "source": "cache", "reason": "client-gone"' in lines[0]
    assert '"status": 200, "source": "cache", "reason": "forced-open"' in lines[1]
    site.at_rest()


def test_what_a_waiting_client_sends_ahead_is_bounded() -> None:
    site = Site()
    client = site.asks()
    client.sends(b"GET /" + b"x" * 70_000)
    assert not client.transport.reading
    site.works()
    assert client.transport.reading
    assert status_of(client.received()) == 200


def test_draining_and_closing_while_clients_wait() -> None:
    site = Site()
    client = site.asks()
    proxy = site.proxy.proxy
    proxy.drain(site.proxy.loop.now + 100)
    assert not client.closed, "it has asked"
    proxy.close()
    assert client.transport.aborted


def test_a_fault_at_one_client_does_not_leave_the_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site()
    first, second = site.asks(), site.asks()
    writes = iter([MemoryError])
    write = type(first.transport).write

    def fails(transport: Any, data: bytes) -> None:
        for error in writes:
            raise error
        write(transport, data)

    monkeypatch.setattr(type(first.transport), "writelines", lambda t, d: fails(t, b"".join(d)))
    with pytest.raises(MemoryError):
        site.works()
    assert body_of(second.received()) == PAGE


# Exchanges whose clients wait


@pytest.mark.parametrize("fails", ["reset", "500", "refused"])
def test_an_application_that_fails(fails: str) -> None:
    site = Site(is_open=False)
    site.proxy.auto_accept = fails != "refused"
    if fails == "refused":
        site.proxy.upstream.resets()
    client = site.asks()
    if fails == "reset":
        site.proxy.upstream.resets()
        site.proxy.upstream.resets()  # it is tried once more
    elif fails == "500":
        site.proxy.upstream.sends(reply(b"broken", status="500 Oh"))
    else:
        site.proxy.refuse()
    assert client.received() == b""
    site.proxy.assert_at_rest()  # its place is free; the client alone waits
    site.works()
    assert body_of(client.received()) == PAGE
    site.proxy.auto_accept = True
    client.sends(get(headers=GZIP))
    site.proxy.upstream.sends(packed())
    assert body_of(client.received()) == PACKED, "the connection goes on"
    site.at_rest()


def test_who_reads_again_while_a_page_is_decoded_is_not_limited_in_writing() -> None:
    site = Site(is_open=False, write_timeout_s=5)
    client = site.asks()
    site.proxy.upstream.sends(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    client.received()
    client.blocks()
    site.proxy.upstream.resets()
    site.proxy.upstream.resets()
    client.unblocks()
    site.proxy.advance(6)
    assert not client.closed
    site.works()
    assert body_of(client.received()) == PAGE
    site.at_rest()


@pytest.mark.parametrize(("fails", "status"), [("reset", 502), ("500", 502)])
def test_an_application_that_fails_while_what_is_stored_cannot_be_read(
    fails: str, status: int
) -> None:
    site = Site(packed(BOMB), is_open=False)
    client = site.asks()
    if fails == "reset":
        site.proxy.upstream.resets()
        site.proxy.upstream.resets()
    else:
        site.proxy.upstream.sends(reply(b"broken", status="500 Oh"))
    site.works()
    answer = client.received()
    assert status_of(answer) == status
    client.sends(get())
    site.proxy.upstream.sends(reply(b"broken", status="500 Oh"))
    assert status_of(client.received()) == 500, "known by now, so the application's own answer"
    site.at_rest()


def patience_of(site: Site) -> FakePeer:
    client = site.asks()
    for _ in range(400):
        site.proxy.advance(0.05)
        if site.jobs:
            return client
    raise AssertionError("nobody loses patience")


def test_while_a_page_is_decoded_for_who_has_waited_long_the_application_may_answer() -> None:
    site = Site(is_open=False)
    client = patience_of(site)
    site.proxy.upstream.sends(packed())
    assert body_of(client.received()) == PACKED
    site.works()
    assert client.received() == b""
    site.at_rest()


def test_who_has_waited_long_gets_what_is_stored_when_it_is_decoded() -> None:
    site = Site(is_open=False)
    client = patience_of(site)
    assert client.received() == b""
    site.works()
    answer = client.received()
    assert body_of(answer) == PAGE and b"detail=patience" in answer
    site.proxy.upstream.sends(packed())
    assert client.received() == b""
    site.at_rest()


def test_who_has_waited_long_gets_it_although_a_head_has_come_meanwhile() -> None:
    """The exchange has handed over to a delivery, which holds the answer back."""
    site = Site(is_open=False)
    client = patience_of(site)
    whole = packed()
    site.proxy.upstream.sends(whole[:-10])
    assert client.received() == b"", "it is held back"
    site.works()
    answer = client.received()
    assert body_of(answer) == PAGE and b"detail=patience" in answer
    site.proxy.upstream.sends(whole[-10:])
    assert client.received() == b""
    site.at_rest()


def test_who_has_waited_long_for_what_cannot_be_read_waits_on() -> None:
    site = Site(packed(BOMB), is_open=False)
    client = patience_of(site)
    site.works()
    assert client.received() == b""
    site.proxy.upstream.sends(packed(BOMB))
    assert body_of(client.received()) == BOMB
    site.at_rest()


def test_a_head_that_has_come_is_held_back_no_longer_if_what_is_stored_cannot_be_read() -> None:
    site = Site(packed(BOMB), is_open=False)
    client = patience_of(site)
    whole = packed(BOMB)
    site.proxy.upstream.sends(whole[:-10])
    assert client.received() == b"", "it is held back"
    site.works()
    begun = client.received()
    assert body_of(begun) == BOMB[:-10]
    site.proxy.upstream.sends(whole[-10:])
    assert client.received() == BOMB[-10:]
    site.at_rest()


def overdue_while_too_many_wait(site: Site) -> None:
    site.proxy.workers.waiting = JOBS_MAX
    for _ in range(400):
        site.proxy.advance(0.05)
        if site.proxy.services.breaker.snapshot(site.proxy.loop.now).answered_late:
            return
    raise AssertionError("nobody loses patience")


def test_who_has_waited_long_gets_what_is_stored_once_there_is_room_to_decode_it() -> None:
    site = Site(is_open=False)
    client = site.asks()
    overdue_while_too_many_wait(site)
    site.proxy.advance(1)
    site.proxy.workers.waiting = 0
    site.proxy.advance(0.05)
    assert site.jobs == 1
    site.works()
    answer = client.received()
    assert body_of(answer) == PAGE and b"detail=patience" in answer
    site.proxy.advance(1)
    site.proxy.upstream.sends(packed())
    assert client.received() == b"" and site.jobs == 0
    site.at_rest()


def test_a_head_that_has_come_is_held_back_no_longer_if_too_many_wait() -> None:
    site = Site(is_open=False)
    site.stores(reply(b"broken", status="500 Oh"), get("/other"))  # so it is held back for long
    client = site.asks()
    whole = packed()
    site.proxy.upstream.sends(whole[:-10])
    overdue_while_too_many_wait(site)
    assert body_of(client.received()) == PACKED[:-10]
    site.proxy.upstream.sends(whole[-10:])
    assert client.received() == PACKED[-10:]
    site.proxy.workers.waiting = 0
    site.at_rest()


def late_head(site: Site, room: bool) -> FakePeer:
    """Let the head come after patience was over and too many were being decoded."""
    site.stores(reply(b"broken", status="500 Oh"), get("/other"))  # so it is held back for long
    client = site.asks()
    overdue_while_too_many_wait(site)
    if room:
        site.proxy.workers.waiting = 0
    site.proxy.upstream.sends(packed()[:-10])
    return client


def test_when_the_head_comes_what_is_stored_is_decoded_if_there_is_room_by_then() -> None:
    site = Site(is_open=False)
    client = late_head(site, room=True)
    assert client.received() == b"" and site.jobs == 1
    site.works()
    answer = client.received()
    assert body_of(answer) == PAGE and b"detail=patience" in answer
    site.proxy.upstream.sends(packed()[-10:])
    assert client.received() == b""
    site.at_rest()


def test_a_head_that_comes_when_patience_is_over_is_not_held_back_if_too_many_wait() -> None:
    site = Site(is_open=False)
    client = late_head(site, room=False)
    assert body_of(client.received()) == PACKED[:-10]
    site.proxy.upstream.sends(packed()[-10:])
    assert client.received() == PACKED[-10:]
    site.proxy.workers.waiting = 0
    site.at_rest()


# What is looked into before it is stored


COOKIE = "visit=abcdefgh12345678"


def store_first_visit(body: bytes, **settings: Any) -> Site:
    site = Site(is_open=False, **settings)
    site.stores(packed(body, **{"Set-Cookie": COOKIE}), get("/new"))
    return site


def kept(site: Site) -> bool:
    """Whether it is stored beside the first page."""
    entries: int = site.proxy.services.store.stats()["entries"]
    return entries == 2


@pytest.mark.parametrize("size", [8_000, 100_000, 500_000])
@pytest.mark.parametrize("personal", [True, False])
def test_a_body_is_looked_into_for_what_is_somebodys_own(size: int, personal: bool) -> None:
    named = b"token: abcdefgh12345678" if personal else b"nobody"
    body = gzip.compress(text(size) + named)
    site = store_first_visit(body)
    if len(body) > INLINE_BYTES_MAX:
        assert not kept(site) and site.jobs == 1, "in the thread"
    site.works()
    assert kept(site) is not personal


def test_a_bomb_is_not_looked_into_and_not_stored() -> None:
    site = store_first_visit(BOMB)
    site.works()
    assert not kept(site)


def test_nothing_is_stored_while_there_is_too_much_to_do() -> None:
    site = Site(is_open=False)
    site.proxy.workers.waiting = JOBS_MAX
    site.stores(packed(gzip.compress(text(100_000, 2)), **{"Set-Cookie": COOKIE}), get("/new"))
    site.proxy.workers.waiting = 0
    site.works()
    assert not kept(site)


def test_what_was_looked_into_by_other_rules_is_not_stored() -> None:
    site = store_first_visit(gzip.compress(text(100_000, 2)))
    services = site.proxy.services
    services.keeper.configure(services.owner_rules.__class__(secret=b"x" * 32))
    site.works()
    assert not kept(site)


def test_a_body_without_a_coding_is_looked_into_whatever_its_size() -> None:
    site = Site(is_open=False)
    page = reply(text(100_000, 3), headers={"Content-Type": "text/html", "Set-Cookie": COOKIE})
    site.stores(page, get("/new"))
    assert site.jobs == 0
    assert kept(site)


def test_limits_of_what_is_done_on_the_spot() -> None:
    """64 KiB decoded at most, whatever a small body says it holds."""
    bomb = gzip.compress(bytes(3 * MIB))
    assert len(bomb) < INLINE_BYTES_MAX
    assert decoding.decoded_at_once(bomb, b"gzip") is None


def test_nothing_is_decoded_for_a_request_that_is_forwarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client without Accept-Encoding costs a healthy application's proxy no milliseconds."""
    decoded: list[bytes] = []
    decode = compressors.decoded

    def note(body: bytes, *how: Any) -> bytes | None:
        decoded.append(body)
        return decode(body, *how)

    monkeypatch.setattr(coding, "decoded", note)
    packed = reply(gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"})
    proxy = FakeProxy()
    client = proxy.client(get(headers={"Accept-Encoding": "gzip"}))
    proxy.upstream.sends(packed)
    client.sends(get())
    proxy.upstream.sends(packed)
    assert decoded == []
    client.received()
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    client.sends(get())
    assert body_of(client.received()) == b"hello"
    assert len(decoded) == 1
    client.sends(get(headers={"Accept-Encoding": "gzip"}))
    assert body_of(client.received()) == body_of(packed)
    assert len(decoded) == 1


@pytest.mark.parametrize(
    "headers", [{"Content-Encoding": "compress"}, {"Content-Encoding": "gzip, br"},
                {"Content-Encoding": "gzip", "Cache-Control": "no-transform"}]
)  # fmt: skip
def test_what_a_client_cannot_read_is_nothing_to_shed_it_with(headers: dict[str, str]) -> None:
    """Without a stored response that it can read it is forwarded, or waits for its turn."""
    proxy = FakeProxy()
    client = proxy.client(get(headers={"Accept-Encoding": "gzip, br, compress"}))
    proxy.upstream.sends(reply(gzip.compress(b"hello"), headers=headers))
    client.received()
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    client.sends(get())
    proxy.upstream.sends(reply(b"plain"))
    assert body_of(client.received()) == b"plain"
